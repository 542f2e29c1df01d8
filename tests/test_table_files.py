"""What files users' tables come in: each kind is read with the right values, or refused by one line that says why."""

import bz2
import gzip
import io
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from photoz.errors import BadInput
from photoz.images.formats import read_array
from photoz.images.picture import NoCutout
from photoz.tables.columns import parse_columns
from photoz.tables.formats import read_raw
from photoz.tables.table import UserTable, read_table

RA, DEC = [10.5, 20.25], [-1.5, 2.0]
DEGREES = "deg"


def rows_of(path: Path, columns: str = "") -> dict[str, list[object]]:
    table: UserTable = read_table(path, parse_columns(columns))
    return table.rows.to_pydict()


def refusal(path: Path, columns: str = "") -> str:
    with pytest.raises(BadInput) as refused:
        read_table(path, parse_columns(columns))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def positions(*more: fits.Column) -> list[fits.Column]:
    return [fits.Column("ra", "D", DEGREES, array=RA), fits.Column("dec", "D", DEGREES, array=DEC), *more]


def fits_bytes(*units: object, primary: object = None) -> bytes:
    sink = io.BytesIO()
    fits.HDUList([primary or fits.PrimaryHDU(), *units]).writeto(sink)
    return sink.getvalue()


def table_bytes(*more: fits.Column, **cards: object) -> bytes:
    unit = fits.BinTableHDU.from_columns(positions(*more))
    for keyword, value in cards.items():
        unit.header[keyword] = value
    return fits_bytes(unit)


# FITS values


@pytest.mark.parametrize(
    ("form", "kind", "null", "zero"),
    [
        ("B", "u1", 255, 0),
        ("B", "u1", 0, -128),
        ("I", ">i2", -32768, 0),
        ("I", ">i2", -1, 2**15),
        ("J", ">i4", -(2**31), 2**31),
        ("K", ">i8", -99, 0),
        ("K", ">i8", -(2**63), 2**63),
    ],
)
def test_tnull_is_compared_with_the_stored_integers(form: str, kind: str, null: int, zero: int, tmp_path: Path) -> None:
    """Whole numbers are shifted without rounding, as unsigned integers are stored."""
    stored = np.array([null, 100], kind)
    path = written(tmp_path / "t.fits", table_bytes(fits.Column("v", form, array=np.zeros(2, kind)), TNULL3=null))
    data = bytearray(path.read_bytes())
    with fits.open(io.BytesIO(bytes(data))) as file:
        start, stride = file[1]._data_offset, file[1].header["NAXIS1"]
    for row in range(2):
        at = start + row * stride + 16
        data[at : at + stored.itemsize] = stored[row : row + 1].tobytes()
    path.write_bytes(bytes(data))
    fits.setval(path, "TZERO3", value=zero, ext=1)
    assert read_raw(path).column("v").to_pylist() == [None, 100 + zero]
    fits.setval(path, "TSCAL3", value=0.5, ext=1)
    assert read_raw(path).column("v").to_pylist() == [None, 50.0 + zero]


def test_an_ascii_tables_null_text_and_blank_fields_are_null(tmp_path: Path) -> None:
    columns = [fits.Column(name, form, ascii=True, array=values) for name, form, values in (
        ("ra", "F8.3", RA), ("dec", "F8.3", DEC), ("z_spec", "E12.4", [0.5, 0.25]), ("n", "I6", [7, 8642]),
    )]  # fmt: skip
    unit = fits.TableHDU.from_columns(columns)
    unit.header["TNULL3"] = "***"
    data = fits_bytes(unit).replace(b"  2.5000E-01", b"         ***").replace(b"  8642", b"      ")
    path = written(tmp_path / "t.fits", data)
    raw = read_raw(path)
    assert raw.column("z_spec").to_pylist() == [0.5, None]
    assert raw.column("n").to_pylist() == [7, None]
    assert raw.column("ra").to_pylist() == RA


def test_fields_that_nobody_asks_for_refuse_no_table(tmp_path: Path) -> None:
    more = [
        fits.Column("observer", "8A", array=np.array([b"Ang\xe8le", b"x"])),
        fits.Column("vis", "M", array=[1j, 2j]),
        fits.Column("bits", "8X", array=np.zeros((2, 8), bool)),
        fits.Column("any", "PD()", array=np.array([np.arange(3.0), np.arange(2.0)], object)),
        fits.Column("five", "5E", array=np.zeros((2, 5))),
    ]
    path = written(tmp_path / "t.fits", table_bytes(*more))
    assert rows_of(path) == {"ra": RA, "dec": DEC}
    for name, said in {
        "observer": "in row 1, which is neither ASCII nor UTF-8",
        "vis": "holds complex numbers",
        "bits": "holds bits",
        "any": "holds arrays of any length",
        "five": "holds arrays of 5; expected one value a row",
    }.items():
        message = refusal(path, f"object_id={name}")
        assert f"column '{name}'" in message and said in message


def test_utf8_texts_of_fits_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.fits", table_bytes(fits.Column("block", "8A", array=np.array(["Åse".encode(), b"b "])))
    )
    assert rows_of(path)["block"] == ["Åse", "b"]


@pytest.mark.parametrize("padding", [bytes(2880), bytes(100), b" " * 5760, b"\x1a" * 2880])
def test_what_follows_the_last_hdu_and_is_no_header_is_passed_over(padding: bytes, tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "t.fits", table_bytes() + padding))["ra"] == RA


def test_a_fits_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    whole = table_bytes() + table_bytes()[2880:]
    for size in (2880 + 1000, 2 * 2880 + 20, 3 * 2880 + 5, 3 * 2880 + 2000, len(whole) - 2880):
        assert "can't be read as FITS" in refusal(written(tmp_path / "t.fits", whole[:size]))


# One of several tables


@pytest.fixture
def ldac(tmp_path: Path) -> Path:
    head = fits.BinTableHDU.from_columns(
        [fits.Column("Field Header Card", "80A", array=["SIMPLE"])], name="LDAC_IMHEAD"
    )
    objects = fits.BinTableHDU.from_columns(positions(), name="LDAC_OBJECTS")
    other = fits.BinTableHDU.from_columns(
        [fits.Column("ra", "D", "deg", array=[77.0]), fits.Column("dec", "D", "deg", array=[7.0])], name="MORE"
    )
    return written(tmp_path / "l.fits", fits_bytes(head, objects, other))


def test_the_first_table_with_positions_is_taken_and_the_log_says_which(
    ldac: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert rows_of(ldac)["ra"] == RA
    assert "reads table [2] of its 3: [1] LDAC_IMHEAD, [2] LDAC_OBJECTS, [3] MORE" in caplog.text


def test_of_two_tables_with_positions_the_one_with_the_mapped_columns_is_taken(tmp_path: Path) -> None:
    first = fits.BinTableHDU.from_columns(positions())
    second = fits.BinTableHDU.from_columns(positions(fits.Column("Z", "D", array=[0.1, 0.2])))
    path = written(tmp_path / "t.fits", fits_bytes(first, second))
    assert rows_of(path, "z_spec=Z")["z_spec"] == [0.1, 0.2]
    assert "z_spec" not in rows_of(path)


@pytest.mark.parametrize("which", ["3", "MORE"])
def test_brackets_name_a_table_of_the_file(which: str, ldac: Path) -> None:
    named = ldac.with_name(f"l.fits[{which}]")
    table = read_table(named, {})
    assert table.rows["ra"].to_pylist() == [77.0]
    assert table.folder == ldac.parent
    assert table.sha256 != read_table(ldac, {}).sha256
    assert "has no table 'NONE'; it has [1] LDAC_IMHEAD, [2]" in refusal(ldac.with_name("l.fits[NONE]"))


def test_a_table_on_its_side_is_read(tmp_path: Path) -> None:
    columns = [
        fits.Column("object_id", "6A", dim="(3,2)", array=np.array([["abc", "d"]])),
        fits.Column("ra", "2D", "deg", array=[RA]),
    ]
    columns.append(fits.Column("dec", "2D", "deg", array=[DEC]))
    path = written(tmp_path / "t.fits", fits_bytes(fits.BinTableHDU.from_columns(columns)))
    assert rows_of(path) == {"object_id": ["abc", "d"], "ra": RA, "dec": DEC}


def test_columns_of_images_are_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = fits.Column("stamp", "192E", dim="(8,8,3)", array=np.zeros((2, 3, 8, 8)))
    rows_of(written(tmp_path / "t.fits", table_bytes(images, fits.Column("flux", "5E", array=np.zeros((2, 5))))))
    lists = pa.array([[1.0] * 100] * 2)
    pq.write_table(pa.table({"ra": RA, "dec": DEC, "pixels": lists}), tmp_path / "t.parquet")
    rows_of(tmp_path / "t.parquet")
    tensors = pa.array([[0.5] * 64] * 2, pa.list_(pa.float32(), 64))
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (8, 8)), tensors)
    pq.write_table(pa.table({"ra": RA, "dec": DEC, "cutout": tensors}), tmp_path / "t.parquet")
    rows_of(tmp_path / "t.parquet")
    warned = [record.message for record in caplog.records if "not read" in record.message]
    assert ["stamp (3x8x8)" in warned[0], "flux" in warned[0], "--images files" in warned[0]] == [True, False, True]
    assert "pixels (list<element: double>)" in warned[1]
    assert "cutout (extension<arrow.fixed_shape_tensor" in warned[2]


# VOTable

FIELDS = '<FIELD name="ra" datatype="double" unit="deg"/><FIELD name="dec" datatype="double" unit="deg"/>'
ROWS = "<TR><TD>10.5</TD><TD>-1.5</TD>{}</TR><TR><TD>20.25</TD><TD>2.0</TD>{}</TR>"


def votable(fields: str = "", cells: tuple[str, str] = ("", ""), before: str = "") -> bytes:
    data = ROWS.format(*cells)
    table = f'<TABLE name="main">{FIELDS}{fields}<DATA><TABLEDATA>{data}</TABLEDATA></DATA></TABLE>'
    start = '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>'
    return f"{start}{before}{table}</RESOURCE></VOTABLE>".encode()


def test_a_votables_column_that_nobody_asks_for_refuses_no_table(tmp_path: Path) -> None:
    fields = '<FIELD name="odd" datatype="int"/><FIELD name="s" datatype="string"/><FIELD name="c" datatype="char"/>'
    cell = "<TD>12x</TD><TD>word</TD><TD>too long</TD>"
    path = written(tmp_path / "t.vot", votable(fields, (cell, cell)))
    assert rows_of(path) == {"ra": RA, "dec": DEC}
    assert "column 'odd'" in refusal(path, "mag_r=odd")
    assert "column 's' holds values of datatype 'string'" in refusal(path, "object_id=s")
    assert "column 'c'" in refusal(path, "object_id=c")  # one character by its FIELD: the rest would be lost


@pytest.mark.parametrize("packing", ["tabledata", "binary", "binary2"])
def test_a_votables_rows_are_the_same_however_they_are_packed(packing: str, tmp_path: Path) -> None:
    table = Table({"ra": RA, "vis": [1j, 2j], "three": np.zeros((2, 3)), "dec": DEC, "object_id": ["abc", "d"]})
    table["ra"].unit = table["dec"].unit = "deg"
    table["mag_r"] = np.ma.array([17.5, 1.0], mask=[False, True])
    table.write(tmp_path / "t.vot", format="votable", tabledata_format=packing)
    expected = {"object_id": ["abc", "d"], "ra": RA, "dec": DEC, "mag_r": [17.5, None]}
    assert {name: rows_of(tmp_path / "t.vot")[name] for name in expected} == expected
    assert "column 'vis' holds values of datatype 'doubleComplex'" in refusal(tmp_path / "t.vot", "z_spec=vis")


def test_of_a_votables_tables_the_first_with_positions_is_taken(tmp_path: Path) -> None:
    data = "<DATA><TABLEDATA><TR><TD>1</TD></TR></TABLEDATA></DATA>"
    other = f'<TABLE name="notes"><FIELD name="x" datatype="int"/>{data}</TABLE>'
    path = written(tmp_path / "t.vot.gz", gzip.compress(votable(before=other)))
    assert rows_of(path)["ra"] == RA
    assert rows_of(path.with_name("t.vot.gz[main]"))["ra"] == RA
    assert "no column ra" in refusal(path.with_name("t.vot.gz[1]"))


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_result_that_the_server_cut_off_is_warned_about(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    info = b'<INFO name="QUERY_STATUS" value="OVERFLOW"/>'
    whole = votable()
    assert rows_of(written(tmp_path / "t.vot", whole))["ra"] == RA and not caplog.text
    mark = b"<TABLE " if place == "before" else b"</RESOURCE>"
    assert rows_of(written(tmp_path / "t.vot", whole.replace(mark, info + mark)))["ra"] == RA
    assert "the server cut this result off" in caplog.text


def test_a_servers_error_is_refused_with_its_text(tmp_path: Path) -> None:
    said = "no such\ncolumn 'zz' at https://me:secret@example.org/ " + "x" * 500
    info = f'<INFO name="QUERY_STATUS" value="ERROR">{said}</INFO>'
    for content in (votable(before=info), votable(before=info).partition(b"<TABLE ")[0] + b"</RESOURCE></VOTABLE>"):
        message = refusal(written(tmp_path / "t.vot", content))
        assert "the error of a server and no table: no such column 'zz' at https://***@example.org" in message
        assert "secret" not in message and message.count("x") < 210
    empty = votable(before='<INFO name="QUERY_STATUS" value="ERROR"/>')
    assert "it gives no reason" in refusal(written(tmp_path / "t.vot", empty))
    assert rows_of(written(tmp_path / "t.vot", votable(before='<INFO name="QUERY_STATUS" value="OK">x</INFO>')))


# A name that stands twice


def twice(path: Path, name: str) -> Path:
    """A table with a second column of that name, in other units."""
    if path.suffix == ".csv":
        return written(path, f"ra,dec,{name},x\n10.5,-1.5,1,1\n20.25,2.0,2,2\n".encode())
    if path.suffix == ".ecsv":
        said = "\n".join(
            f"# - {{name: {one}, unit: {unit}, datatype: float64}}"
            for one, unit in (("ra", "deg"), ("dec", "deg"), (name, "rad"))
        )
        return written(
            path, f"# %ECSV 1.0\n# ---\n# datatype:\n{said}\nra dec {name}\n10.5 -1.5 1\n20.25 2.0 2\n".encode()
        )
    if path.suffix == ".fits":
        data = table_bytes(fits.Column("other", "D", "rad", array=[1.0, 2.0]))
        return written(path, data.replace(b"'other   '", f"'{name:8}'".encode()))
    if path.suffix == ".parquet":
        columns = [pa.array(RA), pa.array(DEC), pa.array([1.0, 2.0])]
        pq.write_table(pa.Table.from_arrays(columns, ["ra", "dec", name]), path)
        return path
    field = f'<FIELD name="{name}" datatype="double" unit="rad"/>'
    return written(path, votable(field, ("<TD>1</TD>", "<TD>2</TD>")))


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "fits", "vot", "parquet"])
def test_a_name_that_stands_twice_is_refused_where_it_is_used(suffix: str, tmp_path: Path) -> None:
    path = twice(tmp_path / f"t.{suffix}", "ra")
    assert "column 'ra' is there 2 times" in refusal(path, "ra=ra:deg")
    with pytest.raises(BadInput, match="'ra' is there 2 times"):
        read_raw(path).column("ra")
    assert read_raw(path).units.get("ra") is None


def test_a_name_that_stands_twice_and_is_not_used_does_not_matter(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "t.csv", b"ra,x,dec,x\n10.5,1,-1.5,2\n20.25,1,2.0,2\n")) == {"ra": RA, "dec": DEC}
    columns = [pa.array(RA), pa.array(DEC), pa.array([1, 2]), pa.array([1, 2])]
    pq.write_table(pa.Table.from_arrays(columns, ["ra", "dec", "x", "x"]), tmp_path / "t.parquet")
    assert rows_of(tmp_path / "t.parquet") == {"ra": RA, "dec": DEC}
    data = table_bytes(fits.Column("x", "D", array=RA), fits.Column("y", "D", array=RA)).replace(
        b"'y       '", b"'x       '"
    )
    assert rows_of(written(tmp_path / "t.fits", data)) == {"ra": RA, "dec": DEC}


# Parquet


def radians(path: Path, place: str) -> Path:
    """Positions in radians, which the file states in one of the usual places."""
    values = {"ra": np.radians(RA), "dec": np.radians(DEC)}
    metadata: dict[str, str] = {}
    fields = [pa.field(name, pa.float64()) for name in values]
    if place.startswith("field"):
        fields = [field.with_metadata({place.removeprefix("field "): "rad"}) for field in fields]
    elif place == "astropy":
        metadata["table_meta_yaml"] = "datatype:\n" + "".join(
            f"- {{name: {name}, unit: !astropy.units.Unit {{unit: rad}}, datatype: float64}}\n" for name in values
        )
    elif place == "pandas":
        metadata["PANDAS_ATTRS"] = json.dumps({"units": {"ra": "rad", "dec": "rad"}})
    else:
        metadata["IVOA.VOTable-Parquet.content"] = votable().decode().replace('"deg"', '"rad"')
    pq.write_table(pa.table(values, pa.schema(fields, metadata)), path)
    return path


@pytest.mark.parametrize("place", ["field unit", "field units", "field TUNIT", "astropy", "pandas", "votable"])
def test_units_that_a_parquet_file_states_are_honoured(place: str, tmp_path: Path) -> None:
    rows = rows_of(radians(tmp_path / "t.parquet", place))
    assert rows["ra"] == pytest.approx(RA, rel=1e-14)
    assert rows["dec"] == pytest.approx(DEC, rel=1e-14)


def test_two_places_that_state_different_units_are_refused(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("ra", pa.float64(), metadata={"unit": "rad"}), pa.field("dec", pa.float64())])
    said = schema.with_metadata({"PANDAS_ATTRS": '{"units": {"ra": "deg"}}'})
    pq.write_table(pa.table({"ra": RA, "dec": DEC}, said), tmp_path / "t.parquet")
    assert "'rad and deg'" in refusal(tmp_path / "t.parquet")


@pytest.mark.parametrize("suffix", ["parquet", "ecsv"])
def test_values_under_astropys_mask_are_null(suffix: str, tmp_path: Path) -> None:
    table = Table({"ra": RA, "dec": DEC, "z_spec": np.ma.array([0.1, 0.2], mask=[False, True])})
    table["ra"].unit = table["dec"].unit = "deg"
    for column in (table["z_spec"].info,):
        column.serialize_method["ecsv"] = "data_mask"
    table.write(tmp_path / f"t.{suffix}")
    assert rows_of(tmp_path / f"t.{suffix}")["z_spec"] == [0.1, None]


def in_parts(folder: Path) -> Path:
    for number in range(12):
        part = pa.table({"ra": [float(number)], "dec": [0.5], "object_id": [f"g{number}"]})
        written(folder / f"part.{number}.parquet", b"")
        pq.write_table(part, folder / f"part.{number}.parquet")
    written(folder / "_SUCCESS", b"")
    written(folder / ".part.0.parquet.crc", b"crc")
    return folder


def test_a_folder_of_parquet_parts_is_one_table_in_natural_order(tmp_path: Path) -> None:
    folder = in_parts(tmp_path / "t.parquet")
    table = read_table(folder, {})
    assert table.rows["object_id"].to_pylist() == [f"g{number}" for number in range(12)]
    assert table.folder == tmp_path
    pq.write_table(pa.table({"ra": [1.0], "dec": [0.5], "object_id": ["other"]}), folder / "part.11.parquet")
    assert read_table(folder, {}).sha256 != table.sha256


@pytest.mark.parametrize("sign", ["_delta_log/0.json", "metadata/v1.metadata.json", ".hoodie/hoodie.properties"])
def test_folders_that_hold_deleted_rows_too_are_refused(sign: str, tmp_path: Path) -> None:
    folder = in_parts(tmp_path / "t")
    written(folder / "data_thumbnail.parquet", (folder / "part.0.parquet").read_bytes())  # as HATS writes it
    assert len(rows_of(folder)["ra"]) == 12
    written(folder / sign, b"{}")
    assert "whose files hold deleted rows, too; export it as plain Parquet" in refusal(folder)


def test_units_in_a_folders_common_metadata_are_honoured(tmp_path: Path) -> None:
    folder = in_parts(tmp_path / "t")
    digest = read_table(folder, {}).sha256
    schema = pq.read_schema(folder / "part.0.parquet")
    dec = schema.field("dec").with_metadata({"unit": "rad"})
    pq.write_metadata(schema.set(schema.get_field_index("dec"), dec), folder / "_common_metadata")
    table = read_table(folder, {})
    assert table.rows["dec"].to_pylist() == [pytest.approx(np.degrees(0.5))] * 12
    assert table.sha256 != digest


def test_parts_in_folders_named_after_values_have_those_as_a_column(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        written(tmp_path / f"t/split={split}/0.parquet", b"")
        pq.write_table(pa.table({"ra": RA, "dec": DEC}), tmp_path / f"t/split={split}/0.parquet")
    assert rows_of(tmp_path / "t")["split"] == ["test"] * 2 + ["train"] * 2 + ["val"] * 2


def test_parts_that_differ_are_refused_where_it_matters(tmp_path: Path) -> None:
    folder = in_parts(tmp_path / "t")
    pq.write_table(pa.table({"ra": [1], "dec": [0.5], "object_id": ["x"], "note": ["y"]}), folder / "part.3.parquet")
    assert "column 'ra' holds double in part.0.parquet and int64 in part.3.parquet" in refusal(folder)
    pq.write_table(pa.table({"dec": [0.5], "object_id": ["x"]}), folder / "part.3.parquet")
    assert "column 'ra' is not in part.3.parquet" in refusal(folder)
    pq.write_table(pa.table({"ra": [1.5], "dec": [0.5], "object_id": ["x"], "note": ["y"]}), folder / "part.3.parquet")
    assert rows_of(folder)["ra"][3] == 1.5
    assert "a folder without Parquet files" in refusal(written(tmp_path / "none/a.csv", b"ra,dec\n1,2\n").parent)


@pytest.mark.parametrize(
    ("kinds", "cells", "read"),
    [
        ([pa.int32(), pa.int64()], [[1], [2**53 + 1]], ["1", str(2**53 + 1)]),
        ([pa.int64(), pa.uint32()], [[-(2**60) - 1], [7]], [str(-(2**60) - 1), "7"]),
        ([pa.uint8(), pa.uint64()], [[1], [2**64 - 1]], ["1", str(2**64 - 1)]),
        ([pa.string(), pa.large_string()], [["a"], ["b"]], ["a", "b"]),
        ([pa.string_view(), pa.string()], [["a"], ["b"]], ["a", "b"]),
        ([pa.dictionary(pa.int8(), pa.string()), pa.large_string()], [["a"], ["b"]], ["a", "b"]),
    ],
)
def test_parts_whose_types_differ_without_loss_are_one_table(
    kinds: list[pa.DataType], cells: list[list[object]], read: list[str], tmp_path: Path
) -> None:
    for part, (kind, values) in enumerate(zip(kinds, cells, strict=True)):
        table = pa.table({"ra": [1.5 + part], "dec": [0.5], "object_id": pa.array(values, kind)})
        (tmp_path / "t").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "t" / f"{part}.parquet")
    assert rows_of(tmp_path / "t")["object_id"] == read


@pytest.mark.parametrize("kinds", [[pa.float32(), pa.float64()], [pa.float64(), pa.float16(), pa.float32()]])
def test_parts_with_floats_of_several_widths_are_one_table(kinds: list[pa.DataType], tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for part, kind in enumerate(kinds):
        table = pa.table({"ra": pa.array(np.array([part + 0.5], kind.to_pandas_dtype())), "dec": [0.5]})
        pq.write_table(table, tmp_path / "t" / f"{part}.parquet")
    assert rows_of(tmp_path / "t")["ra"] == [part + 0.5 for part in range(len(kinds))]


@pytest.mark.parametrize("kinds", [[pa.int64(), pa.uint64()], [pa.int32(), pa.float64()], [pa.string(), pa.int64()]])
def test_parts_whose_types_have_no_common_one_are_refused(kinds: list[pa.DataType], tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for part, kind in enumerate(kinds):
        table = pa.table({"ra": [1.5 + part], "dec": [0.5], "object_id": pa.array(["1"]).cast(kind)})
        pq.write_table(table, tmp_path / "t" / f"{part}.parquet")
    assert "expected one type" in refusal(tmp_path / "t")


def test_a_hats_collection_is_refused_with_the_catalogue_to_give(tmp_path: Path) -> None:
    folder = in_parts(tmp_path / "t" / "gaia")
    in_parts(tmp_path / "t" / "gaia_margin")
    written(tmp_path / "t" / "collection.properties", b"obs_collection=x\nhats_primary_table_url=gaia\n")
    message = refusal(tmp_path / "t")
    assert "it is a HATS collection" in message and message.endswith(f"--table {folder}")
    written(tmp_path / "t" / "collection.properties", b"hats_primary_table_url=../other\n")
    assert refusal(tmp_path / "t").endswith("give the one that you mean: gaia, gaia_margin")
    assert len(rows_of(folder)["ra"]) > 2


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_texts_as_polars_and_pandas_write_them_are_read(kind: pa.DataType, tmp_path: Path) -> None:
    texts = (
        pa.array(["a", "b"]).cast(kind)
        if not pa.types.is_dictionary(kind)
        else pa.array(["a", "b"]).dictionary_encode()
    )
    columns = {"ra": RA, "dec": DEC, "object_id": texts, "note": pa.array([b"x", b"y"], pa.binary_view())}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert rows_of(tmp_path / "t.parquet") == {"object_id": ["a", "b"], "ra": RA, "dec": DEC}


def test_rounded_ids_are_seen_in_a_column_of_categories(tmp_path: Path) -> None:
    ids = pa.array(["1.24E+18", "1.25E+18"]).dictionary_encode()
    pq.write_table(pa.table({"ra": RA, "dec": DEC, "objid": ids}), tmp_path / "t.parquet")
    assert "objid = 1.24E+18: the ids have been rounded" in refusal(tmp_path / "t.parquet")


# Text

ECSV = """# %ECSV 1.0
# ---
# delimiter: '{0}'
# datatype:
# - {{name: name, datatype: string}}
# - {{name: ra, unit: hourangle, datatype: float64}}
# - {{name: dec, unit: deg, datatype: float64}}
# - {{name: z_spec, datatype: float64}}
# meta: !!omap
# - {{made: !somebodys.Thing {{by: hand}}}}
name{0}ra{0}dec{0}z_spec
"NGC{0}1"{0}0.7{0}-1.5{0}""
b{0}1.35{0}2.0{0}0.25
"""


@pytest.mark.parametrize("delimiter", [" ", ","])
@pytest.mark.parametrize("name", ["t.ecsv", "t.csv", "t.ecsv.gz"])
def test_ecsv_is_read_with_its_units_and_nulls(delimiter: str, name: str, tmp_path: Path) -> None:
    content = ECSV.format(delimiter).encode()
    path = written(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    rows = rows_of(path, "object_id=name")
    assert rows["object_id"] == [f"NGC{delimiter}1", "b"]
    assert rows["ra"] == pytest.approx(RA, rel=1e-14) and rows["dec"] == DEC
    assert rows["z_spec"] == [None, 0.25]


def test_an_ecsv_header_that_does_not_fit_its_columns_is_refused(tmp_path: Path) -> None:
    content = ECSV.format(",").replace("name,ra,dec,z_spec", "name,dec,ra,z_spec")
    assert "its header describes columns name, ra" in refusal(written(tmp_path / "t.ecsv", content.encode()))
    assert "makes no sense" in refusal(written(tmp_path / "t.ecsv", b"# %ECSV 1.0\n# datatype: [\nra dec\n1 2\n"))


@pytest.mark.parametrize(
    "unit",
    [
        "{<<: [*a, *a]}",  # doubles with each line: a few more are gigabytes
        "[" * 5000,
        "x" * 2**20,
    ],
)
def test_an_ecsv_header_that_unfolds_without_end_is_refused(unit: str, tmp_path: Path) -> None:
    text = f"# %ECSV 1.0\n# datatype:\n# - &a {{name: ra}}\n# - {{name: dec, unit: {unit}}}\nra dec\n1 2\n"
    assert "makes no sense" in refusal(written(tmp_path / "t.ecsv", text.encode()))


def test_a_unit_that_is_no_text_is_no_angle(tmp_path: Path) -> None:
    text = "# %ECSV 1.0\n# datatype:\n# - {name: ra, unit: &a [x, x]}\n# - {name: dec, unit: [*a, *a]}\nra dec\n1 2\n"
    assert "'a list'" in refusal(written(tmp_path / "t.ecsv", text.encode()))


TABLE = "object_id,ra,dec,block\na,10.5,-1.5,x\nb,20.25,2.0,Åland\n"


@pytest.mark.parametrize(
    "content",
    [
        TABLE.encode(),
        TABLE.encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        TABLE.encode("utf-16-le"),
        b"\xfe\xff" + TABLE.encode("utf-16-be"),
        TABLE.replace(",", ";").encode(),
        ("sep=;\n" + TABLE.replace(",", ";")).encode(),
        TABLE.replace(",", "\t").encode(),
        TABLE.replace(",", "|").encode(),
        TABLE.replace("\n", "\r").encode(),
        TABLE.replace("\n", "\r\n").encode(),
        (TABLE + ",,,\n,,,\n\n").encode(),
        (TABLE.replace(",", ";") + ";;;\r\n").encode(),
    ],
)
def test_text_tables_are_read_however_they_are_written(content: bytes, tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "t.csv", content))
    assert rows == {"object_id": ["a", "b"], "ra": RA, "dec": DEC, "block": ["x", "Åland"]}


@pytest.mark.parametrize("above", ["# name,ra,dec,z\n", "# from me\n# 1,2,3,4\n#name,ra,dec,z\n"])
def test_a_commented_header_above_rows_that_begin_with_text_is_the_header(above: str, tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", f"{above}NGC 1,10.5,-1.5,0.1\nNGC 2,20.25,2,0.2\n".encode())
    assert rows_of(path, "object_id=name") == {
        "object_id": ["NGC 1", "NGC 2"],
        "ra": RA,
        "dec": DEC,
        "z_spec": [0.1, 0.2],
    }
    path = written(tmp_path / "u.csv", b"# a,b,c\nname,ra,dec\nNGC 1,10.5,-1.5\n")
    assert rows_of(path, "object_id=name")["ra"] == [10.5]


@pytest.mark.parametrize("end", ["", "\n", "\n#END#\n"])
@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_vizier_text_is_read_with_its_units(end: str, delimiter: str, tmp_path: Path) -> None:
    text = (
        "#\n#   VizieR Astronomical Server\n#Column\tRAJ2000\t(A12)\n\nRAJ2000\tDEJ2000\tName\tz\tr\n"
        '"h:m:s"\t"d:m:s"\t \t \tmag\n------------\t---\t----\t-\t----\n'
        f"10 42 31.20\t-00 30 45\tNGC 1\t0.1\t17.5\n10 42 31.20\t-01 30 00\tN2\t   \t\n{end}"
    )
    rows = rows_of(
        written(tmp_path / "t.tsv", text.replace("\t", delimiter).encode()), "object_id=Name,mag_r=r,z_spec=z"
    )
    assert rows["ra"] == pytest.approx([160.63] * 2) and rows["dec"] == pytest.approx([-0.5125, -1.5])
    assert (rows["object_id"], rows["z_spec"], rows["mag_r"]) == (["NGC 1", "N2"], [0.1, None], [17.5, None])
    flux = text.replace("mag\n", "uJy\n").encode()
    assert "column 'r' is in 'uJy', a flux" in refusal(written(tmp_path / "f.tsv", flux), "mag_r=r")


def test_decimal_commas_are_refused_and_named(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", b"ra;dec\n10,5;-1,5\n20,25;2\n")
    assert "column 'ra' holds '10,5' in row 1, a decimal comma; expected decimal points" in refusal(path)


def test_bytes_that_are_no_unicode_matter_only_where_they_are_used(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "ra,dec,observer\n10.5,-1.5,Angèle\n20.25,2.0,x\n".encode("latin-1"))
    assert rows_of(path) == {"ra": RA, "dec": DEC}
    assert "column 'observer' holds 'Angèle' in row 1, and the file is no UTF-8" in refusal(path, "block=observer")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"ra dec z\n1 2 3\n", "has neither commas, semicolons, tabs nor bars"),
        (b"\\fixlen = T\n| ra | dec |\n", "looks like an IPAC table"),
        (b"#   1 NUMBER    Running number\n  1\n", "looks like a SExtractor catalogue"),
        (b'[{"ra": 1, "dec": 2}]', "looks like JSON"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"ARROW1\0\0", "is an Arrow (Feather) file"),
        (b"\x28\xb5\x2f\xfd\0", "is packed with zstd"),
        (b"SQLite format 3\0", "is an SQLite database"),
        (b"\x80\x04\x95", "is a pickle"),
        (b"\x93NUMPY\x01\0", "is a numpy array"),
        (b"<!DOCTYPE html><html>", "a web page or other XML"),
        (b"\x01\x02\x03\0\0\0 a thing", "which is no table that is known"),
    ],
)
def test_files_of_other_kinds_are_named_with_what_to_do(content: bytes, said: str, tmp_path: Path) -> None:
    assert said in refusal(written(tmp_path / "t.csv", content))


@pytest.mark.parametrize(("member", "said"), [("[Content_Types].xml", "an Excel workbook"), ("t.csv", "a ZIP archive")])
def test_archives_are_told_from_workbooks(member: str, said: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr(member, "text")
    assert said in refusal(tmp_path / "t.xlsx")


# Names and packing


def test_images_are_read_from_gzip_of_several_members_and_before_padding() -> None:
    pixels = np.arange(12, dtype=np.float32).reshape(3, 4)
    data = fits_bytes(fits.ImageHDU(pixels))
    for at in (0, 2880, 4000):
        packed = gzip.compress(data[:at]) + gzip.compress(data[at:] + bytes(2880))
        assert np.array_equal(read_array(packed), pixels)
    with pytest.raises(NoCutout, match="cut short"):
        read_array(gzip.compress(data)[:-20])
    with pytest.raises(NoCutout, match="without an image"):
        read_array(fits_bytes() + bytes(2880))


@pytest.mark.parametrize("name", ["t.dat", "t.csv", "t.fits", "t.parquet", "t.vot", "t"])
def test_the_first_bytes_say_the_format_and_not_the_name(name: str, tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"ra": RA, "dec": DEC}), sink)
    for content in (table_bytes(), votable(), sink.getvalue(), b"ra,dec\n10.5,-1.5\n20.25,2.0\n"):
        assert rows_of(written(tmp_path / name, content)) == {"ra": RA, "dec": DEC}


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress])
def test_packed_tables_of_several_members_are_read(packed: object, tmp_path: Path) -> None:
    assert callable(packed)
    for content in (table_bytes(), votable(), TABLE.encode()):
        for at in (0, 1, 2000, len(content)):
            path = written(tmp_path / "t.csv", packed(content[:at]) + packed(content[at:]))
            assert rows_of(path)["ra"] == RA
    assert "can't be unpacked: packed data are cut short" in refusal(written(path, packed(content)[:-9]))


def test_members_share_one_limit(tmp_path: Path) -> None:
    path = written(tmp_path / "t.fits.gz", gzip.compress(bytes(2**26)) * 5)
    assert "more than 268435456 bytes once it is unpacked" in refusal(path)


def test_field_cases_give_the_right_values(shared_data: Path) -> None:
    cases = shared_data / "field_cases"
    for name in ("astropy.parquet", "plain.ecsv", "ecsv-in-csv.csv"):
        rows = rows_of(cases / "07-radians-in-parquet-ecsv" / name)
        assert (rows["ra"][0], rows["dec"][0]) == pytest.approx((10.636961687321454, 2.571529830729761), rel=1e-14)
    magnitudes = rows_of(cases / "02-scaled-tnull/packed-mags.fits")["mag_r"]
    assert magnitudes.count(None) == 2 and min(filter(None, magnitudes)) > 16
    for name in ("08-parquet-folder/mine.parquet", "03-padded-fits/zeros.fits", "10-gzip-members/at-hdu.fits.gz"):
        assert rows_of(cases / name)["z_spec"][0] == 0.4289
