import hashlib
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from photoz.errors import BadInput
from photoz.tables.columns import parse_columns
from photoz.tables.table import read_table

FORMATS = ["csv", "parquet", "fits", "vot"]
POSITIONS = "object_id,ra,dec\n"


def write_csv(tmp_path: Path, text: str, name: str = "mine.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def write_table(path: Path, columns: dict[str, object], units: dict[str, str] | None = None) -> Path:
    """The columns in the format that the path's name says; ra and dec in degrees unless told otherwise."""
    table = Table(columns)
    for name, unit in ({"ra": "deg", "dec": "deg"} | (units or {})).items():
        if name in table.colnames:
            table[name].unit = unit or None
    if path.suffix == ".csv":
        table.write(path, format="ascii.csv")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({name: np.asarray(table[name]) for name in table.colnames}), path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table.write(path, format={".fits": "fits", ".vot": "votable"}[path.suffix])
    return path


def refusal(path: Path, columns: str = "") -> str:
    with pytest.raises(BadInput) as refused:
        read_table(path, parse_columns(columns))
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_format_gives_the_same_rows(kind: str, tmp_path: Path, data: st.DataObject) -> None:
    largest = 2**63 - 1 if kind == "vot" else 2**64 - 1  # VOTable has no unsigned 64-bit integers
    numbers = data.draw(st.lists(st.integers(0, largest), min_size=1, max_size=20, unique=True))
    count = len(numbers)
    floats = st.floats(0, 90, allow_subnormal=False)
    ra, dec = (np.array(data.draw(st.lists(floats, min_size=count, max_size=count))) for _ in range(2))
    dtype = np.int64 if kind == "vot" else np.uint64
    path = tmp_path / f"t.{kind}"
    path.unlink(missing_ok=True)
    ids = np.array(numbers, dtype)
    try:
        table = read_table(write_table(path, {"object_id": ids, "ra": ra, "dec": dec}), {})
    except BadInput as refused:
        assert "rounded" in str(refused)  # a few numbers ending in zeros do look so
        return
    assert table.rows["object_id"].to_pylist() == [str(number) for number in numbers]
    assert table.rows["ra"].to_pylist() == ra.tolist()
    assert table.rows["dec"].to_pylist() == dec.tolist()


@pytest.mark.parametrize("kind", ["fits", "vot"])
@pytest.mark.parametrize(("unit", "factor"), [("rad", np.degrees(1)), ("hourangle", 15.0), ("arcmin", 1 / 60)])
def test_angles_in_other_units_come_back_in_degrees(kind: str, unit: str, factor: float, tmp_path: Path) -> None:
    ra, dec = np.array([0.5, 1.25]), np.array([-0.5, 0.75])
    path = write_table(tmp_path / f"t.{kind}", {"ra": ra, "dec": dec})
    if kind == "fits":  # astropy does not write every unit that FITS files come with
        fits.setval(path, "TUNIT1", value=unit, ext=1)
    else:
        path = write_table(tmp_path / "u.vot", {"ra": ra, "dec": dec}, {"ra": unit})
    rows = read_table(path, {}).rows
    assert np.allclose(rows["ra"].to_numpy(), ra * factor, rtol=1e-14)
    assert rows["dec"].to_pylist() == dec.tolist()


def test_a_unit_can_be_given_with_the_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "alpha,delta\n1.5,-30\n")
    rows = read_table(path, parse_columns("ra=alpha:hourangle,dec=delta")).rows
    assert rows["ra"][0].as_py() == pytest.approx(22.5, rel=1e-15)


@pytest.mark.parametrize("kind", ["fits", "vot"])
def test_missing_and_wrong_units_are_refused_with_what_to_do(kind: str, tmp_path: Path) -> None:
    columns = {"ra": [1.0, 2.0], "dec": [3.0, 4.0]}
    without = read_table(write_table(tmp_path / f"none.{kind}", columns, {"ra": ""}), {}).rows
    assert without["ra"].to_pylist() == [1, 2]
    path = write_table(tmp_path / f"hours.{kind}", columns, {"ra": "h"})
    assert read_table(path, {}).rows["ra"].to_pylist() == pytest.approx([15, 30])
    assert "'ra' is in 's', which is no known angle" in refusal(
        write_table(tmp_path / f"time.{kind}", columns, {"ra": "s"})
    )
    fluxes = columns | {"mag_r": [1.0, 2.0]}
    assert "expected magnitudes (AB)" in refusal(write_table(tmp_path / f"flux.{kind}", fluxes, {"mag_r": "nJy"}))
    speeds = columns | {"z_spec": [1.0, 2.0]}
    assert "divide velocities by c" in refusal(write_table(tmp_path / f"speed.{kind}", speeds, {"z_spec": "km/s"}))


def test_quantities_and_masked_values_of_astropy_are_understood(tmp_path: Path) -> None:
    table = QTable({"ra": [10, 20] * u.deg, "dec": [1, 2] * u.deg, "mag_r": [17.0, 18.0] * u.mag})
    table = Table(table, masked=True)
    table["z_spec"] = np.ma.array([0.1, 0.2], mask=[False, True])
    path = tmp_path / "masked.fits"
    table.write(path)
    rows = read_table(path, {}).rows
    assert rows["z_spec"].to_pylist() == [0.1, None]
    assert rows["mag_r"].to_pylist() == [17.0, 18.0]


def test_a_missing_column_is_named_with_those_present_and_a_mapping(tmp_path: Path) -> None:
    message = refusal(write_csv(tmp_path, "alpha,delta,Z\n1,2,0.1\n"))
    assert "no column ra and no column dec (it has alpha, delta, Z)" in message
    assert "--columns ra=alpha,dec=delta" in message
    assert "no column 'Q'; the table has alpha, delta, Z" in refusal(tmp_path / "mine.csv", "ra=alpha,dec=Q")
    rows = read_table(tmp_path / "mine.csv", parse_columns("ra=alpha, dec=delta, z_spec=Z")).rows
    assert rows.to_pylist() == [{"ra": 1.0, "dec": 2.0, "z_spec": 0.1}]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("ra", "expected OURS=YOURS"),
        ("ra=", "expected OURS=YOURS"),
        ("right_ascension=RA", "catalogues have no 'right_ascension'"),
        ("mag_=m", "catalogues have no 'mag_'"),
        ("ra=a,ra=b", "ra is mapped twice"),
    ],
)
def test_mappings_that_make_no_sense_are_refused(columns: str, said: str) -> None:
    with pytest.raises(BadInput, match="--columns") as refused:
        parse_columns(columns)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,360.5,2,0.1,0.01", "ra = 360.5 in row 2"),
        ("a,-180.5,2,0.1,0.01", "ra = -180.5 in row 2"),
        ("a,1,90.1,0.1,0.01", "dec = 90.1 in row 2"),
        ("a,,2,0.1,0.01", "ra is missing or not a number in row 2"),
        ("a,nan,2,0.1,0.01", "ra is missing or not a number in row 2"),
        ("a,inf,2,0.1,0.01", "ra = inf in row 2"),
        ("a,12:30:00,2,0.1,0.01", "ra = '12:30:00' in row 2; expected a number (decimal degrees)"),
        ("a,1,2,-0.5,0.01", "z_spec = -0.5 in row 2"),
        ("a,1,2,21,0.01", "z_spec = 21 in row 2"),
        ("a,1,2,inf,0.01", "z_spec = inf in row 2"),
        ("a,1,2,0.1,-1", "z_spec_err = -1 in row 2"),
        ("a,1,2,high,0.01", "z_spec = 'high' in row 2; expected a number"),
        ("g,1,2,0.1,0.01", "object_id = 'g' is there 2 times"),
        (",1,2,0.1,0.01", "object_id is empty in row 2"),
        ("a,1,2,0.1", "can't be read as CSV"),
    ],
)
def test_impossible_values_are_refused_with_their_row(row: str, said: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path, f"object_id,ra,dec,z_spec,z_spec_err\ng,10,20,0.05,0.001\n{row}\n")
    assert said in refusal(path)


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    text = "ra,dec,z_spec,mag_g,mag_r,ebv\n1,2,,17.5,-9999,0.1\n3,4,nan,99,18.5,NULL\n5,6,0.2,inf,--,0.3\n"
    rows = read_table(write_csv(tmp_path, text), {}).rows
    assert rows["z_spec"].to_pylist() == [None, None, 0.2]
    assert rows["mag_g"].to_pylist() == [17.5, None, None]
    assert rows["mag_r"].to_pylist() == [None, 18.5, None]
    assert rows["ebv"].to_pylist() == [0.1, None, 0.3]


@pytest.mark.parametrize("name", ["object_id", "objid", "specObjID", "source_id", "obj_id", "ID"])
@pytest.mark.parametrize(
    "ids",
    [
        ["1.24E+18", "1.24E+18", "1.25E+18"],
        ["1237648720693755904.0", "1237648720693756160.0", "1237648720693756416.0"],
        ["1240000000000000000", "1250000000000000000", "1260000000000000000"],
        ["1237648720693755904", "1237648720693756160", "1237648720693756416"],  # each a float64
    ],
)
def test_rounded_ids_are_refused_even_where_nobody_asks_for_them(name: str, ids: list[str], tmp_path: Path) -> None:
    text = f"{name},ra,dec\n" + "".join(f"{text},{10 + row},0\n" for row, text in enumerate(ids))
    message = refusal(write_csv(tmp_path, text))
    assert f"{name} = {ids[0]}: the ids have been rounded" in message


def test_whole_ids_are_kept_whatever_they_look_like(tmp_path: Path) -> None:
    # specObjIDs end in ten zero bits and are float64 numbers by nature; 2**63 and beyond are plates from 8192 on.
    ids = [
        "299489677444933632",
        "299535582055393280",
        "299548501317019648",
        "9263495804394848256",
        "007",
        "NGC 1",
        "12.0",
    ]
    text = POSITIONS + "".join(f"{text},{10 + row},0\n" for row, text in enumerate(ids))
    assert read_table(write_csv(tmp_path, text), {}).rows["object_id"].to_pylist() == ids


def test_float_ids_are_refused_where_they_are_no_longer_exact(tmp_path: Path) -> None:
    def table(ids: list[float]) -> Path:
        path = tmp_path / "f.parquet"
        pq.write_table(pa.table({"object_id": ids, "ra": [1.0] * len(ids), "dec": [2.0] * len(ids)}), path)
        return path

    assert "rounded" in refusal(table([1.2376487206937558e18, 2.0]))
    assert "fractions" in refusal(table([1.5, 2.0]))
    assert "empty in row 2" in refusal(table([1.0, float("nan")]))
    assert read_table(table([1.0, 2.0]), {}).rows["object_id"].to_pylist() == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "no such file"),
        ("t.csv", b"", "has no rows"),
        ("t.csv", b"ra,dec\n", "has no rows"),
        ("t.csv", b"ra,ra,dec\n1,2,3\n", "'ra' is there 2 times"),
        ("t.csv", b"ra,dec\n\xff\xfe,2\n", "column 'ra' holds 'ÿþ' in row 1, and the file is no UTF-8"),
        ("t.parquet", b"PAR1 but not really", "can't be read as Parquet"),
        ("t.fits", b"SIMPLE", "can't be read as FITS"),
        ("t.vot", b"<html>", "can't be read as VOTable"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert said in refusal(path)


def test_a_fits_image_is_no_table(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    assert "without a table" in refusal(tmp_path / "image.fits")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(["csv", "parquet", "fits", "vot"]), content=st.binary(max_size=400))
def test_no_file_whatever_brings_the_reader_down(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"any.{suffix}"
    path.write_bytes({"parquet": b"PAR1", "fits": b"SIMPLE  =                    T"}.get(suffix, b"") + content)
    with pytest.raises(BadInput):
        read_table(path, {})


CELLS = st.text(alphabet="0123456789.-+eE_ \"',naif#:\u0663", max_size=8)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), min_size=1, max_size=4))
def test_no_cell_whatever_brings_the_reader_down(tmp_path: Path, cells: list[tuple[str, ...]]) -> None:
    path = write_csv(tmp_path, "ra,dec,z_spec,object_id\n" + "".join(",".join(row) + "\n" for row in cells))
    try:
        rows = read_table(path, {}).rows
    except BadInput as refused:
        assert "\n" not in str(refused)
        return
    assert all(0 <= ra <= 360 for ra in rows["ra"].to_pylist())
    assert len(set(rows["object_id"].to_pylist())) == rows.num_rows


def test_columns_of_lists_are_refused_where_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "lists.parquet"
    lists = [[1.0], [2.0]]
    pq.write_table(pa.table({"ra": [1.0, 2.0], "dec": [1.0, 2.0], "object_id": lists, "image": lists}), path)
    assert "'object_id' holds list<" in refusal(path)
    pq.write_table(pa.table({"ra": lists, "dec": [1.0, 2.0]}), path)
    assert "column 'ra' holds list<element: double>; expected numbers" in refusal(path)


@pytest.mark.parametrize(
    "text",
    [
        "#Table1\nra,dec\n1,2\n",
        "#Table1,,\n\nra,dec\n1,2\n",
        "# ra,dec\n1,2\n",
        "# made by hand\n# ra, dec\n1,2\n",
        "﻿ra , dec\r\n 1 , 2 \r\n",
    ],
)
def test_comment_lines_above_a_csv_are_understood(text: str, tmp_path: Path) -> None:
    assert read_table(write_csv(tmp_path, text), {}).rows.to_pylist() == [{"ra": 1.0, "dec": 2.0}]


def test_images_are_hashed_and_missing_ones_are_null(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"pixels")
    rows = read_table(write_csv(tmp_path, "ra,dec,image\n1,2,a.jpg\n3,4,b.jpg\n5,6,\n"), {}).rows
    assert rows["image_sha256"].to_pylist() == [hashlib.sha256(b"pixels").hexdigest(), None, None]
    assert "none of the 1 images is there" in refusal(write_csv(tmp_path, "ra,dec,image\n1,2,c.jpg\n", "t.csv"))


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.jpg", "a/../../b.jpg"])
def test_images_outside_the_tables_folder_are_refused(name: str, tmp_path: Path) -> None:
    assert "outside the table's folder" in refusal(write_csv(tmp_path, f"ra,dec,image\n1,2,{name}\n"))


def test_a_numbered_split_column_is_refused_and_blocks_are_suggested(tmp_path: Path) -> None:
    message = refusal(write_csv(tmp_path, "ra,dec,split\n1,2,7\n"))
    assert "split = '7'; expected train, val or test" in message
    assert "--columns block=NAME" in message
    assert "block is empty in 1 rows" in refusal(write_csv(tmp_path, "ra,dec,block\n1,2,\n1,3,a\n"))


def test_skyservers_recorded_replies_are_read_or_refused_for_the_right_reason(shared_data: Path) -> None:
    recorded = shared_data / "skyserver_recorded"
    message = refusal(recorded / "Skyserver_SQL2_27_2018_10k.csv")
    assert "objid = 1.24E+18: the ids have been rounded" in message
    assert "objid = 1.24E+18" in refusal(recorded / "Skyserver_SQL2_27_2018_10k.csv", "object_id=objid,z_spec=redshift")
    message = refusal(recorded / "Skyserver_CrossID_5000.csv")
    assert "no column ra and no column dec (it has u, g, r, i, z, redshift)" in message
