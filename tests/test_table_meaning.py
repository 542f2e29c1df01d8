"""What the columns of users' tables mean: units, fluxes, placeholders, ids, names, conditions, image paths."""

import hashlib
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from jobs.app import app
from photoz.errors import BadInput
from photoz.tables.columns import parse_columns
from photoz.tables.table import UserTable, read_table


def csv(tmp_path: Path, text: str, name: str = "mine.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def fits_table(path: Path, columns: dict[str, object], units: dict[str, str]) -> Path:
    made = []
    for name, values in columns.items():
        array = np.asarray(values)
        kind = f"{array.dtype.itemsize // 4}A" if array.dtype.kind == "U" else "D"
        made.append(fits.Column(name, kind, array=array, unit=units.get(name)))
    fits.BinTableHDU.from_columns(made).writeto(path)
    return path


def read(path: Path, columns: str = "", **settings: object) -> UserTable:
    return read_table(path, parse_columns(columns), **settings)  # type: ignore[arg-type]


def values(path: Path, name: str, columns: str = "", **settings: object) -> list[object]:
    found: list[object] = read(path, columns, **settings).rows[name].to_pylist()
    return found


def refusal(path: Path, columns: str = "", **settings: object) -> str:
    with pytest.raises(BadInput) as refused:
        read(path, columns, **settings)
    message = str(refused.value)
    assert "\n" not in message
    return message


def column(name: str, texts: list[object]) -> str:
    """A CSV of positions and one more column."""
    return f"ra,dec,{name}\n" + "".join(f"{10 + row / 1000},{row / 1000},{text}\n" for row, text in enumerate(texts))


# Angles

DEGREES = [
    "DEGREE", "degree", "Degrees", "DEG", "deg.", "Deg", "°", "º", "decimal degrees", "Decimal Degree", "[deg]",
    "deg (J2000)", "deg_ICRS", "Angle[deg]", "degrees_east", "(deg)", "degs", "degrees (ICRS)", "d:m:s",
]  # fmt: skip


@pytest.mark.parametrize("unit", DEGREES)
def test_any_spelling_of_degrees_is_degrees(unit: str, tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec\n10.5,-2.25\n")
    assert values(path, "ra", f"ra=ra:{unit},dec=dec:{unit}") == [10.5]
    assert values(path, "dec", f"dec=dec:{unit}") == [-2.25]


@pytest.mark.parametrize("unit", ["DEGREE", "degree", "Degrees", "DEG"])
def test_a_fits_file_says_degrees_as_it_likes(unit: str, tmp_path: Path) -> None:
    path = fits_table(tmp_path / "t.fits", {"ra": [10.5, 150.25], "dec": [1.0, 2.0]}, {"ra": unit, "dec": unit})
    assert values(path, "ra") == [10.5, 150.25]


@pytest.mark.parametrize(
    ("units", "degrees"),
    [
        (["rad", "RAD", "radian", "Radians", "rads"], math.degrees(1.5)),
        (["hourangle", "Hours", "h", "hr", "HOUR", "hour angle", "h:m:s"], 22.5),
        (["arcmin", "arcminutes", "ARCMIN"], 1.5 / 60),
        (["arcsec", "Arcseconds", '"'], 1.5 / 3600),
        (["mas"], 1.5 / 3.6e6),
    ],
)
def test_other_angles_are_converted_whatever_their_spelling(units: list[str], degrees: float, tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec\n1.5,0\n")
    for unit in units:
        assert values(path, "ra", f"ra=ra:{unit}") == pytest.approx([degrees], rel=1e-14)


def test_a_unit_that_is_no_angle_is_refused_with_a_hint_that_can_be_obeyed(tmp_path: Path) -> None:
    wide = refusal(csv(tmp_path, "ra,dec\n150,2\n151,3\n"), "ra=ra:parsec")
    assert "is in 'parsec', which is no known angle" in wide and "hour" not in wide.partition("Its values")[2]
    assert "Its values, 150 to 151, can be degrees; for degrees say --columns ra=ra:deg" in wide
    narrow = refusal(csv(tmp_path, "ra,dec\n10,2\n"), "ra=ra:foo")
    assert "can be degrees or hours; for degrees say --columns ra=ra:deg" in narrow and ":hourangle" not in narrow
    assert "can't be degrees" in refusal(csv(tmp_path, "ra,dec\n1000,2\n"), "ra=ra:foo")
    assert "'foo', which is no known angle" in refusal(csv(tmp_path, "ra,dec\n,2\n"), "ra=ra:foo")


def test_declinations_are_not_in_hours_and_hours_end_at_24(tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec\n25,2\n")
    assert "no declination is in; expected deg, rad or arcsec" in refusal(path, "dec=dec:h")
    assert "ra = 375 degrees, as column 'ra' is in hours in row 1" in refusal(path, "ra=ra:hours")
    assert "expected a unit after the colon" in refusal(path, "ra=ra:")
    assert "expected no unit, as object_id has none" in refusal(path, "object_id=ra:deg")


def sky(count: int, ra_unit: float, dec_unit: float) -> str:
    draw = np.random.default_rng(1)
    ra, dec = draw.uniform(0, 360, count) / ra_unit, draw.uniform(-60, 60, count) / dec_unit
    return "ra,dec\n" + "".join(f"{a!r},{d!r}\n" for a, d in zip(ra.tolist(), dec.tolist(), strict=True))


def test_numbers_without_unit_are_degrees_unless_they_look_like_radians_or_hours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    read(csv(tmp_path, sky(50, 1, 1)))
    assert "no unit stated for ra and dec: taken as degrees" in caplog.text
    degrees = math.degrees(1)
    path = csv(tmp_path, sky(50, degrees, degrees))
    assert "looks like radians; say which: --columns ra=ra:deg,dec=dec:deg for degrees, " in refusal(path)
    assert max(values(path, "ra", "ra=ra:rad,dec=dec:rad")) > 340  # type: ignore[type-var]
    assert max(values(path, "ra", "ra=ra:deg,dec=dec:deg")) < 6.3  # type: ignore[type-var]
    hours = refusal(csv(tmp_path, sky(200, 15, 1)))
    assert "looks like hours" in hours and hours.index(":deg") < hours.index(":hourangle")


def test_smaller_areas_that_can_be_radians_or_hours_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw = np.random.default_rng(4)
    for ra, dec, said in (
        (draw.uniform(2, 3, 50), draw.uniform(0, 1.2, 50), "could be radians"),
        (draw.uniform(8, 17, 50), draw.uniform(-5, 70, 50), "could be hours"),
        (draw.uniform(150, 151, 50), draw.uniform(0, 1, 50), ""),
        (draw.uniform(5, 5.01, 50), draw.uniform(1, 1.01, 50), ""),
    ):
        caplog.clear()
        text = "ra,dec\n" + "".join(f"{a:.6f},{d:.6f}\n" for a, d in zip(ra, dec, strict=True))
        assert values(csv(tmp_path, text), "ra") == pytest.approx(ra, abs=1e-6)
        warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warned) == bool(said) and said in "".join(warned)
    both_signs = "ra,dec\n" + "".join(f"{a:.6f},{a / 3:.6f}\n" for a in np.linspace(-3.1, 3.1, 50))
    assert "looks like radians" in refusal(csv(tmp_path, both_signs))


@pytest.mark.parametrize(
    ("ra_name", "dec_name", "ra", "dec"),
    [
        ("ra_rad", "dec_rad", math.degrees(1.5), math.degrees(0.5)),
        ("RA [radians]", "Dec [radians]", math.degrees(1.5), math.degrees(0.5)),
        ("RA (hours)", "dec_deg", 22.5, 0.5),
        ("ra_hr", "DEC (degrees)", 22.5, 0.5),
        ("x_arcsec", "y_arcsec", 1.5 / 3600, 0.5 / 3600),
        ("grad", "hrs", 1.5, 0.5),
    ],
)
def test_a_unit_at_the_end_of_a_mapped_columns_name_is_honoured(
    ra_name: str, dec_name: str, ra: float, dec: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = csv(tmp_path, f"{ra_name},{dec_name}\n1.5,0.5\n")
    mapping = f"ra={ra_name},dec={dec_name}"
    assert (values(path, "ra", mapping), values(path, "dec", mapping)) == (pytest.approx([ra]), pytest.approx([dec]))
    assert (f"column {ra_name!r} is in " in caplog.text) == (ra != 1.5)
    assert values(path, "ra", f"ra={ra_name}:deg,dec={dec_name}:deg") == [1.5]
    table = fits_table(tmp_path / "t.fits", {ra_name: [1.5], dec_name: [0.5]}, {ra_name: "deg", dec_name: "deg"})
    assert values(table, "ra", mapping) == [1.5]


def test_sexagesimal_text_is_read_as_such_whatever_its_columns_name(tmp_path: Path) -> None:
    assert values(csv(tmp_path, "ra_deg,dec_deg\n10:30:00,1:30:00\n"), "ra") == [157.5]


@pytest.mark.parametrize("name", ["ra_rad", "ra_hours"])
def test_a_unit_in_only_one_of_two_names_is_no_answer_for_the_other(name: str, tmp_path: Path) -> None:
    path = csv(tmp_path, f"{name},dec\n1.5,0.5\n")
    hint = "--columns dec=dec:deg" + (" or dec=dec:rad" if name == "ra_rad" else "")
    message = refusal(path, f"ra={name}")
    assert "'dec' states no unit; say which: " in message and message.endswith(hint)
    assert values(path, "dec", f"ra={name},dec=dec:deg") == [0.5]


def test_right_ascensions_below_zero_get_360_degrees_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = csv(tmp_path, "ra,dec\n-10.5,1\n170,2\n-180,3\n")
    assert values(path, "ra") == [349.5, 170, 180]
    assert "2 values of 'ra' are below 0, to -180: 360 added" in caplog.text
    assert values(csv(tmp_path, "ra,dec\n-1.5,1\n1,2\n"), "ra", "ra=ra:rad,dec=dec:deg") == pytest.approx(
        [360 - math.degrees(1.5), math.degrees(1)]
    )
    assert "ra = -157.5 in row 1" in refusal(csv(tmp_path, "ra,dec\n-10:30:00,1\n"))
    for cells in ("-10.5 190", "-99 10", "-1 10", "-181 10"):
        text = "ra,dec\n" + "".join(f"{cell},0\n" for cell in cells.split())
        assert f"ra = {cells.split()[0]} in row 1" in refusal(csv(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("ra,dec\nnan,1\n2,3\n", "ra >= 0"),
        ("ra,dec\n1,\n2,3\n", "dec >= -90"),
        ("RA J2000,dec\n,1\n-2,3\n", "`RA J2000` >= -180"),
        ("ra,dec\n10:30:00,1\n,3\n", "ra != ''"),
    ],
)
def test_missing_positions_are_refused_with_a_condition_that_drops_them(text: str, where: str, tmp_path: Path) -> None:
    path = csv(tmp_path, text)
    mapping = "ra=RA J2000" if "J2000" in text else ""
    assert f'such as with --where "{where}"' in refusal(path, mapping)
    assert read(path, mapping, where=where).rows.num_rows == 1


# Sexagesimal positions


@pytest.mark.parametrize("unit", ["hr:min:sec", "hms", "h:m:s", "hh:mm:ss.ss", "hours:minutes:seconds", "hour min sec"])
def test_any_spelling_of_hours_minutes_seconds_is_understood(unit: str, tmp_path: Path) -> None:
    columns = {"ra": ["10:30:00"], "dec": ["1:30:00"]}
    path = fits_table(
        tmp_path / "s.fits",
        columns,
        {"ra": unit, "dec": unit.replace("hour", "degree").replace("hr", "deg").replace("h", "d")},
    )
    assert values(path, "ra") == [157.5]
    assert values(path, "dec", "dec=dec:deg:arcmin:arcsec") == [1.5]


def test_sexagesimal_text_in_an_unknown_unit_is_refused_with_a_unit_that_works(tmp_path: Path) -> None:
    path = fits_table(tmp_path / "s.fits", {"ra": ["10:30:00"], "dec": ["1:30:00"]}, {"ra": "time", "dec": "foo"})
    assert refusal(path).endswith("--columns ra=ra:hms")
    assert refusal(path, "ra=ra:hms").endswith("--columns dec=dec:dms")
    assert values(path, "ra", "ra=ra:hms,dec=dec:dms") == [157.5]


@pytest.mark.parametrize(
    ("ra", "dec", "ra_deg", "dec_deg"),
    [
        ("10:42:31.2", "+12:30:45", 160.63, 12.5125),
        ("10 42 31.2", "-00 30 45", 160.63, -0.5125),
        ("10h42m31.2s", "-00d30m45s", 160.63, -0.5125),
        ("10:42.52", "−12:30", 160.63, -12.5),
        ("160d37m48s", "12°30′45″", 160.63, 12.5125),
    ],
)
def test_sexagesimal_positions_are_read(ra: str, dec: str, ra_deg: float, dec_deg: float, tmp_path: Path) -> None:
    rows = read(csv(tmp_path, f"ra,dec\n{ra},{dec}\n")).rows
    assert rows["ra"].to_pylist() == pytest.approx([ra_deg], rel=1e-12)
    assert rows["dec"].to_pylist() == pytest.approx([dec_deg], rel=1e-12)


def test_the_unit_of_sexagesimal_positions_is_honoured_and_a_doubt_is_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec\n10:30:00,1:30:00\n")
    assert values(path, "ra", "ra=ra:deg") == [10.5]
    assert values(path, "ra", "ra=ra:hourangle") == [157.5]
    table = fits_table(tmp_path / "s.fits", {"ra": ["10:30:00"], "dec": ["1:30:00"]}, {"ra": '"h:m:s"'})
    assert values(table, "ra") == [157.5]
    degrees = refusal(csv(tmp_path, "ra,dec\n150:30:00,1:30:00\n"))
    assert "150 is no hour" in degrees and "--columns ra=ra:deg" in degrees
    assert values(tmp_path / "mine.csv", "ra", "ra=ra:deg") == [150.5]
    assert "contradicts the column's unit" in refusal(csv(tmp_path, "ra,dec\n10h30m00s,1\n"), "ra=ra:deg")
    assert "below 60" in refusal(csv(tmp_path, "ra,dec\n10:61:00,1\n"))
    assert "dec = '1h30m' in row 1; expected degrees" in refusal(csv(tmp_path, "ra,dec\n10,1h30m\n"))
    assert "in row 2; expected sexagesimal" in refusal(csv(tmp_path, "ra,dec\n10:30:00,1\n11.5,2\n"))
    assert "ra is missing or not a number in row 2" in refusal(csv(tmp_path, "ra,dec\n10:30:00,1\n,2\n"))


@pytest.mark.parametrize("mapping", ["", "ra=RAh,dec=DEd", "ra=RAh:hours,dec=DEd:deg"])
def test_positions_in_a_column_for_each_part_are_refused_with_advice(mapping: str, tmp_path: Path) -> None:
    path = csv(tmp_path, "RAh,RAm,RAs,DE-,DEd,DEm,DEs\n10,42,31.2,-,0,30,1\n")
    message = refusal(path, mapping)
    assert "ra is spread over the columns RAh, RAm, RAs" in message and "_RAJ2000 and _DEJ2000" in message
    assert "dec is spread over" in refusal(csv(tmp_path, "ra,DE-,DEd,DEm\n1,-,0,30\n"), "dec=DEd")
    beside = csv(tmp_path, "RAh,RAm,DEd,DEm,_RAJ2000,_DEJ2000\n10,42,0,30,160.5,0.5\n")
    assert values(beside, "ra") == [160.5]


# Magnitudes and fluxes

FLUXES = np.geomspace(0.08, 400, 94)


@pytest.mark.parametrize(
    ("unit", "magnitude"),
    [
        ("nmgy", 20.0), ("nanomaggy", 20.0), ("NANOMAGGIES", 20.0), ("nMgy", 20.0), ("maggies", -2.5),
        ("Jy", 6.4), ("mJy", 13.9), ("MJY", 13.9), ("uJy", 21.4), ("µJy", 21.4), ("nJy", 28.9), ("njy", 28.9),
    ],
)  # fmt: skip
def test_fluxes_become_ab_magnitudes_on_request(unit: str, magnitude: float, tmp_path: Path) -> None:
    scale = 10 ** (-0.4 * (20 - magnitude))  # so that all magnitudes are near 20, whatever the unit
    path = csv(tmp_path, column("FLUX_G", [10 * scale, 20 * scale, 0, -3, "", 5 * scale]))
    found = values(path, "mag_g", f"mag_g=FLUX_G:{unit}")
    assert found[2:5] == [None, None, None]
    assert [found[0], found[1], found[5]] == pytest.approx([20, 20 - 2.5 * math.log10(2), 20 + 2.5 * math.log10(2)])


def test_errors_of_fluxes_are_converted_together_with_the_fluxes(tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec,F,E\n1,2,10,0.1\n3,4,-1,0.1\n5,6,10000,\n")
    rows = read(path, "mag_r=F:nmgy,mag_err_r=E:nmgy").rows
    assert rows["mag_r"].to_pylist() == pytest.approx([20, None, 12.5])
    assert rows["mag_err_r"].to_pylist() == pytest.approx([2.5 / math.log(10) * 0.01, None, None])
    mixed = read(path, "mag_r=F:nmgy,mag_err_r=E:maggy").rows["mag_err_r"].to_pylist()
    assert mixed[0] is None  # beyond any magnitude
    assert "mag_r to no fluxes; expected both: --columns mag_r=NAME:nmgy" in refusal(path, "mag_err_r=E:nmgy")


@pytest.mark.parametrize("unit", ["nmgy", "nanomaggy", "NANOMAGGIES", "Jy", "uJy", "MAGGIES", "nanomaggies"])
def test_a_flux_column_is_refused_with_a_conversion_that_works(unit: str, tmp_path: Path) -> None:
    scale = 1e-9 if unit in ("Jy", "MAGGIES") else 1.0
    columns = {"ra": [1.0, 2.0], "dec": [3.0, 4.0], "mag_r": [10 * scale, 20 * scale]}
    path = fits_table(tmp_path / "t.fits", columns, {"mag_r": unit})
    message = refusal(path)
    assert f"column 'mag_r' is in '{unit}', a flux" in message
    hint = message.partition("--columns ")[2]
    assert values(path, "mag_r", hint)[0] == pytest.approx(values(path, "mag_r", hint)[1] + 2.5 * math.log10(2))  # type: ignore[operator]


def test_fluxes_that_state_no_unit_are_refused_by_their_values(tmp_path: Path) -> None:
    message = refusal(csv(tmp_path, column("mag_r", [f"{flux:.4g}" for flux in FLUXES])))
    assert "mag_r (column 'mag_r') has the median" in message and "--columns mag_r=mag_r:nmgy" in message
    assert len(values(tmp_path / "mine.csv", "mag_r", "mag_r=mag_r:nmgy")) == 94
    assert "expected AB magnitudes" in refusal(csv(tmp_path, column("F", [0.5, 0.6, 0.7])), "mag_i=F")
    assert "expected AB magnitudes" in refusal(csv(tmp_path, column("mag_r", [-21.5, -20.1, -22.3])))
    assert "mag_r" not in read(tmp_path / "mine.csv", "mag_r=-").rows.column_names
    bright = csv(tmp_path, column("mag_r", [17.5, 18.5, *[0] * 20, *range(10, 30)]))
    assert values(bright, "mag_r")[:3] == [17.5, 18.5, None]  # one odd value, however often, makes no fluxes


@pytest.mark.parametrize("unit", ["[uJy]", "dex(uJy)", "mag(uJy)", "dB(uJy)", "[nmgy]", "dex(Jy)"])
def test_a_logarithm_of_fluxes_is_no_flux(unit: str, tmp_path: Path) -> None:
    path = fits_table(tmp_path / "t.fits", {"ra": [1.0], "dec": [3.0], "mag_r": [1.5]}, {"mag_r": unit})
    assert f"is in '{unit}'" in refusal(path) and "--columns" not in refusal(path)
    assert f"is in '{unit}'" in refusal(csv(tmp_path, "ra,dec,F\n1,2,1.5\n"), f"mag_r=F:{unit}")


def test_ab_is_a_unit_of_magnitudes(tmp_path: Path) -> None:
    path = fits_table(tmp_path / "t.fits", {"ra": [1.0], "dec": [3.0], "mag_r": [18.5]}, {"mag_r": "AB"})
    assert values(path, "mag_r") == [18.5]
    message = refusal(csv(tmp_path, "ra,dec,F\n1,2,1.5\n"), "mag_r=F:AB")
    assert "expected AB magnitudes" in message and "unit of the flux" not in message


def test_shared_fluxes_of_the_legacy_surveys_become_magnitudes(shared_data: Path) -> None:
    path = shared_data / "field_cases" / "25-parquet-types" / "legacy-flux.parquet"
    assert "--columns mag_r=FLUX_R:nmgy" in refusal(path, "mag_r=FLUX_R")
    fluxes = pq.read_table(path)["FLUX_R"].to_numpy()
    assert values(path, "mag_r", "mag_r=FLUX_R:nmgy") == pytest.approx((22.5 - 2.5 * np.log10(fluxes)).tolist())


def test_blanked_values_are_called_what_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    usual = csv(tmp_path, column("mag_r", [17, 18, -9999, 99, 99.99, -99, "inf", -9.99, "nan"]))
    assert values(usual, "mag_r") == [17, 18, *[None] * 7]
    assert "6 values of mag_r mean `not measured` (-9999, 99, 99.99, -99 …): now null" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    odd = csv(tmp_path, column("mag_r", [*[17 + row / 100 for row in range(60)], 61.7, 74.2]))
    assert values(odd, "mag_r")[60:] == [None, None]
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) == 1 and "2 values of mag_r can't be right (61.7, 74.2)" in warned[0]
    errors = csv(tmp_path, "ra,dec,mag_r,mag_err_r\n1,2,17,-1\n3,4,18,0.1\n")
    assert values(errors, "mag_err_r") == [None, 0.1]
    caplog.clear()
    many = csv(tmp_path, column("mag_r", [*[17 + row / 100 for row in range(9)], *[0] * 12, 37.5, 37.5, 37.5, 3.5]))
    assert values(many, "mag_r")[9:] == [*[None] * 15, 3.5]
    assert "15 values of mag_r can't be right (0, 37.5): now null" in caplog.text
    assert "1 values of mag_r are unlikely (3.5) and kept" in caplog.text
    assert values(csv(tmp_path, column("ebv", [0.1, -1, -9999, -0.01])), "ebv") == [0.1, None, None, -0.01]


def test_columns_that_only_their_prefix_makes_ours_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = pa.table(
        {
            "ra": [1.0, 2.0],
            "dec": [3.0, 4.0],
            "mag_r": [17.0, 18.0],
            "mag_system": ["AB", "AB"],
            "mag_ok": [True, False],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").rows.column_names == ["ra", "dec", "mag_r"]
    assert "column 'mag_system' holds no numbers: left out" in caplog.text
    assert "mag_system = 'AB' in row 1; expected a number" in refusal(tmp_path / "t.parquet", "mag_i=mag_system")
    assert "mag_r = 'high' in row 2; expected a number" in refusal(csv(tmp_path, column("mag_r", [17, "high"])))


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("mag_r_err", [0.02, 0.03, 0.05]),
        ("mag_err", [0.02, 0.03, 0.05]),
        ("mag_abs_r", [-21.5, -20.1, -22.3]),
        ("mag_auto", [0.5, 300, 2e4]),
        ("mag_r_type", [17, "high", 18]),
    ],
)
def test_columns_that_nobody_asks_for_and_that_hold_no_magnitudes_are_left_out(
    name: str, cells: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path, column(name, cells))
    assert read(path).rows.column_names == ["ra", "dec"]
    assert f"column {name!r} is left out" in caplog.text
    assert "expected" in refusal(path, f"mag_r={name}")


@pytest.mark.parametrize("name", ["mag_g", "mag_r", "MAG_R", "mag_w1", "mag_ks", "mag_nuv", "mag_f814w", "mag_nb816"])
def test_a_column_named_after_a_band_that_holds_fluxes_is_refused(name: str, tmp_path: Path) -> None:
    assert f"={name}:nmgy" in refusal(csv(tmp_path, column(name, [f"{flux:.4g}" for flux in FLUXES])))


@pytest.mark.parametrize(("name", "cells"), [("F", [-21.5, -20.1]), ("FERR", [0.1, 0.2])])
def test_what_can_be_no_flux_gets_no_hint_of_a_conversion(name: str, cells: list[object], tmp_path: Path) -> None:
    message = refusal(csv(tmp_path, column(name, cells)), f"mag_r={name}")
    assert "nmgy" not in message and "--columns mag_r=NAME" in message


@pytest.mark.parametrize(
    ("name", "unit", "given"),
    [
        ("FLUX_IVAR_R", "", ":nmgy"), ("flux_ivar_r", "", ""), ("r_inverse_variance", "", ":Jy"),
        ("E", "1/nanomaggy^2", ":nmgy"), ("E", "nmgy-2", ":nmgy"), ("E", "nanomaggies^(-2)", ""), ("E", "1/mag2", ""),
        ("E", "mag**-2", ""), ("E", "Jy^-2", ":Jy"), ("E", "", ":1/nanomaggy^2"),
    ],
)  # fmt: skip
def test_inverse_variances_are_no_errors(name: str, unit: str, given: str, tmp_path: Path) -> None:
    columns = {"ra": [1.0, 2.0], "dec": [3.0, 4.0], "F": [10.0, 20.0], name: [400.0, 100.0]}
    path = fits_table(tmp_path / "t.fits", columns, {name: unit} if unit else {})
    message = refusal(path, f"mag_r=F:nmgy,mag_err_r={name}{given}")
    assert f"column {name!r} holds inverse variances" in message and "1/sqrt" in message


@pytest.mark.parametrize("cells", [[2.0, 9.0, 16.0], [0.02, 0.09, 2.0]])
def test_errors_of_more_than_a_magnitude_are_warned_about(
    cells: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path, "ra,dec,mag_r,mag_err_r\n" + "".join(f"{row},1,18,{cell}\n" for row, cell in enumerate(cells)))
    assert values(path, "mag_err_r") == cells
    assert ("check that column 'mag_err_r' holds standard errors" in caplog.text) == (cells[0] > 1)


# Redshifts


@pytest.mark.parametrize("placeholder", ["-1", "-9", "-99", "-999", "-9999", "-9.999", "-9.9999", "99", "99.9", "9999"])
@pytest.mark.parametrize("count", [1, 10])
def test_placeholders_of_redshifts_are_null_and_counted(
    placeholder: str, count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path, column("z_spec", [*[placeholder] * count, 0.1, 0.25]))
    assert values(path, "z_spec") == [*[None] * count, 0.1, 0.25]
    assert f"{count} values of z_spec mean `not known` ({float(placeholder):g})" in caplog.text
    float32 = pa.table(
        {"ra": [1.0, 2.0], "dec": [3.0, 4.0], "z_spec": pa.array([float(placeholder), 0.5], pa.float32())}
    )
    pq.write_table(float32, tmp_path / "f.parquet")
    assert values(tmp_path / "f.parquet", "z_spec") == [None, 0.5]


def test_nines_within_the_range_are_null_where_they_repeat(tmp_path: Path) -> None:
    assert values(csv(tmp_path, column("z_spec", ["9.9999", "9.9999", 0.1, 0.2, 0.3])), "z_spec")[:2] == [None, None]
    assert values(csv(tmp_path, column("z_spec", ["9.9999", 0.1, 0.2])), "z_spec")[0] == 9.9999
    shared = csv(tmp_path, column("z_spec", [*[-5] * 3, 0.1, *[50] * 4, 0.2]))
    assert values(shared, "z_spec") == [*[None] * 3, 0.1, *[None] * 4, 0.2]
    assert "z_spec = -0.5 in row 1" in refusal(csv(tmp_path, column("z_spec", [-0.5, 0.1])))


@pytest.mark.parametrize(
    ("unit", "said"),
    [("redshift", ""), ("km/s", "divide velocities by c"), ("km s-1", "divide velocities"), ("mag", "z_spec=z_spec:1")],
)
def test_units_of_redshifts_are_accepted_and_others_refused_with_what_to_do(
    unit: str, said: str, tmp_path: Path
) -> None:
    columns = {"ra": [1.0, 2.0], "dec": [3.0, 4.0], "z_spec": [0.1, 0.2]}
    path = fits_table(tmp_path / "t.fits", columns, {"z_spec": unit})
    if said:
        message = refusal(path)
        assert f"is in '{unit}'" in message and said in message
        assert ("velocities" in message) == ("s" in unit)
    assert values(path, "z_spec", f"z_spec=z_spec{':1' if said else ''}") == [0.1, 0.2]


def test_an_error_counts_only_beside_a_redshift(tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec,z_spec,z_spec_err\n1,2,-1,-1\n3,4,0.1,0.01\n5,6,0.2,-99\n")
    assert values(path, "z_spec_err") == [None, 0.01, None]


def test_repeated_redshifts_are_warned_about_and_dropped_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw = np.random.default_rng(2)
    rounded = [f"{z:.4f}" for z in draw.uniform(0.01, 0.6, 400)]  # some repeat by chance
    path = csv(tmp_path, column("z_spec", [*[0] * 7, *rounded, *["0.77"] * 9]))
    assert read(path).rows.num_rows == 416
    assert "z_spec = 0.77 in 9 rows, z_spec = 0 in 7 rows: exactly repeated" in caplog.text
    table = read(path, drop_repeated_z=True)
    assert table.cuts == [("rows of the table", 416), ("no exactly repeated z_spec", 400)]
    assert table.rows["z_spec"].to_pylist() == [float(z) for z in rounded]
    caplog.clear()
    cluster = [f"{z:.4f}" for z in draw.normal(0.0231, 0.003, 3000)]
    read(csv(tmp_path, column("z_spec", [*cluster, *[f"{z:.3f}" for z in draw.uniform(0.01, 0.6, 5000)]])))
    assert "repeated" not in caplog.text


def test_a_median_redshift_of_magnitudes_is_refused_unless_confirmed(tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec,u,g,r,i,z\n" + "".join(f"{row},1,20,19,18,18,{17 + row / 10}\n" for row in range(9)))
    message = refusal(path, "z_spec=z")
    assert "the median of z_spec (column 'z') is 17.4, as of magnitudes" in message and "--allow-high-z" in message
    assert len(values(path, "z_spec", "z_spec=z", allow_high_z=True)) == 9


# Names


@pytest.mark.parametrize(
    "header",
    [
        "RA,DEC,Z_SPEC", "Ra,Dec,zspec", "RAJ2000,DEJ2000,redshift", "ra_deg,dec_deg,specz", "RAdeg,DEdeg,Z_spec",
        "RA,DEC,z", "ALPHA_J2000,DELTA_J2000,ZSPEC", "_RAJ2000,_DEJ2000,Redshift", "RA_ICRS,DE_ICRS,Z",
    ],
)  # fmt: skip
def test_standard_names_need_no_mapping(header: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rows = read(csv(tmp_path, f"{header}\n10,20,0.1\n")).rows
    assert rows.to_pylist() == [{"ra": 10.0, "dec": 20.0, "z_spec": 0.1}]
    assert f"column {header.split(',')[0]!r} is taken as ra" in caplog.text


@pytest.mark.parametrize("beside", ["u,g,r,i", "g,r", "G,R", "x,y", "Y,J,H", "i"])
def test_a_z_beside_bands_or_coordinates_is_no_redshift_and_no_hint(
    beside: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    count = beside.count(",") + 1
    rows = read(csv(tmp_path, f"ra,dec,{beside},z\n10,20,{','.join(['18'] * count)},17.5\n")).rows
    assert rows.column_names == ["ra", "dec"]
    mapping = ",".join(f"mag_{band}={band}" for band in beside.split(","))
    assert "z_spec" not in read(tmp_path / "mine.csv", mapping).rows.column_names
    assert "z_spec" not in caplog.text


def test_two_columns_for_one_meaning_are_refused_unless_one_has_the_exact_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = csv(tmp_path, "ra,dec,zspec,redshift\n1,2,0.1,0.5\n")
    message = refusal(path)
    assert "columns 'zspec', 'redshift' can each be z_spec; say which: --columns z_spec=zspec" in message
    assert values(path, "z_spec", "z_spec=redshift") == [0.5]
    assert "z_spec" not in read(path, "z_spec=-").rows.column_names
    assert values(csv(tmp_path, "ra,dec,redshift,z_spec,z\n1,2,0.5,0.1,0.3\n"), "z_spec") == [0.1]
    assert "z_spec comes from column 'z_spec', not from 'redshift'" in caplog.text
    assert values(csv(tmp_path, "RAJ2000,RA,dec\n1,2,3\n"), "ra") == [2]
    assert "'RA', 'Ra' can each be ra" in refusal(csv(tmp_path, "RA,Ra,dec\n1,2,3\n"))
    assert values(csv(tmp_path, "RA,ra,dec\n1,2,3\n"), "ra") == [2]


@pytest.mark.parametrize("names", ["RA RAdeg DEC DEdeg", "RA ra_deg DEC dec_deg", "ra ra_deg dec dec_deg"])
def test_a_column_whose_name_says_degrees_wins_over_one_that_says_nothing(
    names: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ra, ra_deg, dec, dec_deg = names.split()
    path = csv(tmp_path, f"{ra},{ra_deg},{dec},{dec_deg}\n10.5,157.5,7,8\n")
    assert (values(path, "ra"), values(path, "dec")) == ([157.5], [8])
    assert f"ra comes from column {ra_deg!r}, not from {ra!r}" in caplog.text
    stated = fits_table(tmp_path / "t.fits", {ra: [10.5], ra_deg: [157.5], "dec": [1.0]}, {ra: "hourangle"})
    if ra.lower() != ra_deg.lower():
        assert values(stated, "ra") == [157.5]  # 10.5 hours


def test_a_mapped_column_is_not_kept_under_its_old_name_too(tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec,mag_auto,MAG_G\n1,2,17,18\n")
    assert read(path, "mag_r=mag_auto").rows.to_pylist() == [{"ra": 1, "dec": 2, "mag_r": 17, "mag_g": 18}]


# Ids


@pytest.mark.parametrize("spelt", ["'{}", "’{}", '"=""{}"""', "'{}'", '=""{}""'.replace('""', '"')])
def test_excels_quotes_are_no_part_of_an_id(spelt: str, tmp_path: Path) -> None:
    ids = ["1237648720693755918", "1237648720693755955", "1237648720693755992"]
    text = "object_id,ra,dec\n" + "".join(f"{spelt.format(one)},{row},0\n" for row, one in enumerate(ids))
    assert values(csv(tmp_path, text), "object_id") == ids
    rounded = "object_id,ra,dec\n" + "".join(f"{spelt.format('1.24E+18')},{row},0\n" for row in range(3))
    assert "rounded" in refusal(csv(tmp_path, rounded))


def survey_ids(survey: str, count: int) -> list[int]:
    draw = np.random.default_rng(3)
    if survey == "desi":
        return [39627500000000000 + int(value) for value in draw.integers(0, 10**12, count)]
    if survey == "gaia":
        return [int(value) for value in draw.integers(10**17, 6 * 10**18, count)]
    if survey == "legacy":
        return [9906610000000000 + int(value) for value in draw.integers(0, 10**13, count)]
    return [1237645879551000000 + int(value) for value in draw.integers(0, 10**13, count)]


@pytest.mark.parametrize(("survey", "count"), [("desi", 12), ("gaia", 4), ("sdss", 3), ("legacy", 40)])
@pytest.mark.parametrize("how", ["float64", "spreadsheet"])
def test_ids_that_went_through_floating_point_are_refused_for_every_survey(
    survey: str, count: int, how: str, tmp_path: Path
) -> None:
    ids = survey_ids(survey, count)
    text = "source_id,ra,dec\n" + "".join(f"{one},{row},0\n" for row, one in enumerate(ids))
    assert len(values(csv(tmp_path, text), "ra")) == count
    damaged = [int(float(one)) if how == "float64" else int(str(one)[:15].ljust(len(str(one)), "0")) for one in ids]
    text = "source_id,ra,dec\n" + "".join(f"{one},{row},0\n" for row, one in enumerate(damaged))
    assert "source_id = " in refusal(csv(tmp_path, text)) and "rounded" in refusal(tmp_path / "mine.csv")
    pq.write_table(pa.table({"objid": damaged, "ra": [1.0] * count, "dec": [2.0] * count}), tmp_path / "t.parquet")
    assert "rounded" in refusal(tmp_path / "t.parquet")


def test_one_or_two_ids_that_look_rounded_are_only_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "objid,ra,dec\n1237648720693755904,1,0\n1237648720693756160,2,0\n"
    assert len(values(csv(tmp_path, text), "ra")) == 2
    assert "may have been rounded" in caplog.text


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_ids_in_float_columns_are_refused_beyond_what_the_type_holds(kind: pa.DataType, tmp_path: Path) -> None:
    limit = 2**24 if kind == pa.float32() else 2**53
    for ids, refused in (([1.0, 2.0, float(limit)], False), ([1.0, 2.0, float(limit) * 2], True)):
        table = pa.table({"object_id": pa.array(ids, kind), "ra": [1.0, 2.0, 3.0], "dec": [1.0, 2.0, 3.0]})
        pq.write_table(table, tmp_path / "t.parquet")
        if refused:
            assert "rounded" in refusal(tmp_path / "t.parquet")
        else:
            assert values(tmp_path / "t.parquet", "object_id") == ["1", "2", str(limit)]


def test_ids_that_end_in_zeros_by_their_surveys_scheme_are_kept(tmp_path: Path) -> None:
    schemes = {
        "spectra": [
            (plate << 50) + (fibre << 38) + (1598 << 24) + (26 << 10)
            for plate, fibre in ((266, 1), (6000, 3), (15000, 7))
        ],
        "cells": [(3 << 59) + (cell << 35) for cell in (5, 6, 7, 9, 11)],
        "dates": [2020010112000000 + 100 * minute for minute in range(0, 59, 7)],
    }
    for scheme, ids in schemes.items():
        text = "object_id,ra,dec\n" + "".join(f"{one},{row},0\n" for row, one in enumerate(ids))
        assert values(csv(tmp_path, text, f"{scheme}.csv"), "object_id") == list(map(str, ids))


GAIA = [str(627 * 10**15 // 128 * 128 + 128 * step) for step in (1, 33555, 77778, 1234567)]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("object_id", ["0012e345", "ab12e3ff", "12e45"]),
        ("object_id", ["1E2", "K22", "1.24E+18"]),
        ("source_id", GAIA),
        ("gaia_id", GAIA),
        ("objid", ["-6497332648823496704", "-6497332648823496705", "-6497332648823496706"]),
    ],
)
def test_ids_that_only_look_rounded_are_kept(name: str, ids: list[str], tmp_path: Path) -> None:
    text = f"{name},ra,dec\n" + "".join(f"{one},{row},0\n" for row, one in enumerate(ids))
    assert values(csv(tmp_path, text), "object_id", f"object_id={name}") == ids


@pytest.mark.parametrize(
    "ids",
    [
        ["-1237648720693755904", "-1237648720693756160", "-1237648720693756416"],
        ["-1237648720693750000", "-1237648720693760000", "-1237648720693780000"],
        ["-1237648720693755918.0", "-3.0"],
        ["17", "1.24E+18", "18"],
    ],
)
def test_rounded_ids_are_seen_below_zero_and_beside_whole_ones(ids: list[str], tmp_path: Path) -> None:
    text = "objid,ra,dec\n" + "".join(f"{one},{row},0\n" for row, one in enumerate(ids))
    assert "rounded" in refusal(csv(tmp_path, text))


def test_large_gaia_ids_that_went_through_floating_point_are_refused(tmp_path: Path) -> None:
    ids = [(2**62 + one * 12345677) // 1024 * 1024 for one in range(100, 110)]
    text = "source_id,ra,dec\n" + "".join(f"{one},{row},0\n" for row, one in enumerate(ids))
    assert "rounded" in refusal(csv(tmp_path, text))


@pytest.mark.parametrize("ids", [pa.array([b"\xff" * 16, b"\xfe" * 16], pa.binary(16)), pa.array([b"\xe8", b"x"])])
def test_ids_that_are_raw_bytes_refuse_no_table_unless_they_are_asked_for(ids: pa.Array, tmp_path: Path) -> None:
    pq.write_table(pa.table({"source_id": ids, "ra": [1.0, 2.0], "dec": [3.0, 4.0]}), tmp_path / "t.parquet")
    assert values(tmp_path / "t.parquet", "ra") == [1, 2]
    assert "expected text or numbers" in refusal(tmp_path / "t.parquet", "object_id=source_id")


# Conditions

CONDITIONS = [
    ("zconf >= 2", "bcd"),
    ("zconf>2 or class == 'STAR'", "cde"),
    ("not zconf >= 3", "ab"),
    ("zconf != 2", "acd"),
    ("zconf in (1, 4) and (class == 'GALAXY')", "ad"),
    ("zconf not in (1, 4)", "bc"),
    ("1 < zconf <= 3", "bc"),
    ("class = 'GALAXY' AND zconf < 2.5", "ab"),
    ('class != "GALAXY"', "ce"),
    ("class in ('STAR', 'QSO')", "ce"),
    ("`odd name` > -1e-3", "bd"),
    ("z_spec < zconf", "abcd"),
    ("big == 1237648720693755918", "b"),
    ("big > 1237648720693755917", "bde"),
    ("big > 0.5 and big < 99999999999999999999 and big > -1 and big < 18446744073709551615", "abcde"),
    ("big > z_spec", "abcde"),
]


@pytest.mark.parametrize("kind", ["csv", "parquet", "fits"])
@pytest.mark.parametrize(("condition", "kept"), CONDITIONS)
def test_a_condition_selects_rows(condition: str, kept: str, kind: str, tmp_path: Path) -> None:
    big = [1237648720693755917, 1237648720693755918, 5, 1237648720693755919, 1237648720693755919]
    columns: dict[str, list[object]] = {
        "object_id": ["a", "b", "c", "d", "e"],
        "ra": [1.0, 2.0, 3.0, 4.0, 5.0],
        "dec": [1.0, 2.0, 3.0, 4.0, 5.0],
        "z_spec": [0.1, 0.2, 0.3, 0.4, 0.5],
        "zconf": [1.0, 2.0, 3.0, 4.0, None],
        "class": ["GALAXY", "GALAXY", "QSO", "GALAXY", "STAR"],
        "odd name": [-1.0, 0.0, -0.1, 5.0, None],
        "big": big,  # type: ignore[dict-item]
    }
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        lines = ["" if cell is None else str(cell) for row in zip(*columns.values(), strict=True) for cell in row]
        rows = [",".join(lines[start : start + 8]) for start in range(0, 40, 8)]
        path.write_text(",".join(columns) + "\n" + "\n".join(rows) + "\n")
    elif kind == "parquet":
        pq.write_table(pa.table(columns), path)
    else:
        made = [
            fits.Column(name, "K" if name == "big" else "6A" if isinstance(cells[0], str) else "D",
                        array=np.array([np.nan if cell is None else cell for cell in cells]))
            for name, cells in columns.items()
        ]  # fmt: skip
        fits.BinTableHDU.from_columns(made).writeto(path)
    table = read(path, where=condition)
    assert "".join(table.rows["object_id"].to_pylist()) == kept
    assert table.cuts == [("rows of the table", 5), (f"where {condition}", len(kept))]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("zcon >= 2", "no column 'zcon'; did you mean zconf?"),
        ("ZCONF >= 2", "did you mean zconf?"),
        ("zconf >= ", "ends too early"),
        ("", "ends too early"),
        ("zconf", "compared with nothing"),
        ("(zconf > 1", "not closed"),
        ("zconf > 1)", "did not expect ')'"),
        ("zconf > 1 & z_spec > 0", "'&' can't be used"),
        ("zconf > 'a'", "is text; expected == or !="),
        ("name > 2", "name = 'x' in row 1; expected a number"),
        ("__import__('os').system('true')", "'.' can't be used"),
        ("1 < 2", "compares no column"),
        ("zconf > 99", "no row of mine.csv meets it (2 rows)"),
        ("name == y", "no column 'y'"),
        ("(" * 2000 + "zconf > 1" + ")" * 2000, "nested more than"),
        ("not " * 2000 + "zconf > 1", "nested more than"),
    ],
)
def test_conditions_that_mean_nothing_are_refused_in_one_line(condition: str, said: str, tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec,z_spec,zconf,name\n1,2,0.1,3,x\n3,4,0.2,4,y\n")
    assert said in refusal(path, where=condition)


def test_rows_that_a_condition_drops_are_not_checked_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec,good\n1,2,1\n400,2,0\n3,4,1\n500,6,1\n")
    assert "ra = 500 in row 4 (1 such rows)" in refusal(path, where="good == 1")


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32()])
@pytest.mark.parametrize(
    ("condition", "kept"),
    [("z == 3.4", [2]), ("z <= 3.4", [1, 2]), ("3.4 < z", [3]), ("z in (3.4, 1.1)", [1, 2]), ("z != 3.4", [1, 3]),
     ("z < 1e99", [1, 2, 3])],
)  # fmt: skip
def test_a_literal_beside_a_narrow_column_is_a_number_of_its_type(
    kind: pa.DataType, condition: str, kept: list[int], tmp_path: Path
) -> None:
    cells = pa.array(np.array([1.1, 3.4, 7.5], np.float16 if kind == pa.float16() else np.float32))
    pq.write_table(pa.table({"ra": [1.0, 2.0, 3.0], "dec": [0.0] * 3, "z": cells}), tmp_path / "t.parquet")
    assert values(tmp_path / "t.parquet", "ra", "z_spec=-", where=condition) == kept


@pytest.mark.parametrize("condition", ["id == 1237648720693755918", "id in (1237648720693755918, 7)",
                                       "id == '1237648720693755918'"])  # fmt: skip
def test_ids_in_excels_quotes_are_compared_without_them_and_exactly(condition: str, tmp_path: Path) -> None:
    path = csv(tmp_path, "id,ra,dec\n'1237648720693755917,1,0\n'1237648720693755918,2,0\n'1237648720693755919,3,0\n")
    assert values(path, "ra", where=condition) == [2]


@pytest.mark.parametrize("cells", [["1237648720693755917", "0.5"], [1.25, 2.5]])
def test_long_numbers_are_not_compared_with_columns_of_fractions(cells: list[object], tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": cells, "ra": [1.0, 2.0], "dec": [0.0, 0.0]}), tmp_path / "t.parquet")
    for sign in ("==", "<"):
        message = refusal(tmp_path / "t.parquet", where=f"a {sign} 1237648720693755918")
        assert "has more digits than column a" in message and "== '1237648720693755918' with text" in message
    assert len(values(tmp_path / "t.parquet", "ra", where="a < 1.3e18")) == 2


# Images


def test_image_paths_start_in_the_folder_that_images_from_names(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "im").mkdir(parents=True)
    (tmp_path / "elsewhere" / "im" / "a.jpg").write_bytes(b"pixels")
    digest = hashlib.sha256(b"pixels").hexdigest()
    root = tmp_path / "elsewhere"
    absolute = csv(tmp_path, f"ra,dec,image\n1,2,{root}/im/a.jpg\n")
    assert "name the root of absolute paths with --images-from" in refusal(absolute)
    table = read(absolute, images_from=str(root))
    assert (table.rows["image"].to_pylist(), table.folder) == (["im/a.jpg"], root)
    assert table.rows["image_sha256"].to_pylist() == [digest]
    assert table.names_sha256 is not None
    assert values(absolute, "image", images_from=str(root / "im")) == ["a.jpg"]
    (tmp_path / "linked").symlink_to(root)
    linked = csv(tmp_path, f"ra,dec,image\n1,2,{tmp_path}/linked/im/a.jpg\n", "linked.csv")
    assert values(linked, "image", images_from=str(tmp_path / "linked")) == ["im/a.jpg"]
    relative = read(csv(tmp_path, "ra,dec,image\n1,2,im/a.jpg\n", "relative.csv"), images_from=str(root))
    assert relative.rows["image_sha256"].to_pylist() == [digest] and relative.names_sha256 is None
    (tmp_path / "other").mkdir()
    assert "is outside --images-from" in refusal(absolute, images_from=str(tmp_path / "other"))
    assert "no such folder" in refusal(absolute, images_from=str(tmp_path / "none"))
    assert "~ is not expanded" in refusal(absolute, images_from="~/none")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("C:\\images\\a.jpg", "is a Windows path"),
        ("im\\a.jpg", "is a Windows path"),
        ("\\\\server\\a.jpg", "is outside the table's folder"),
        ("C:/images/a.jpg", "is a Windows path"),
        ("~/im/a.jpg", "~ is not expanded"),
        ("https://example.org/a.jpg", "is a URL"),
    ],
)
def test_paths_of_other_systems_and_shells_get_one_line(name: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(csv(tmp_path, f"ra,dec,image\n1,2,{name}\n"))


def test_a_name_outside_the_locale_is_one_line(tmp_path: Path) -> None:
    csv(tmp_path, "ra,dec,image\n1,2,a.jpg\n")
    (tmp_path / "mine.csv").write_bytes("ra,dec,image\n1,2,星.jpg\n".encode())
    (tmp_path / "星.jpg").write_bytes(b"pixels")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "jobs", "catalog", "--survey", "table", "--table", "mine.csv"]
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    assert b"can't be a file's name in this locale" in done.stderr and b"Traceback" not in done.stderr


def test_a_folder_whose_name_is_no_utf8_is_one_line(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    assert "caf\\xe9 has a name that is no UTF-8" in refusal(csv(folder, "ra,dec\n1,2\n"))


# The command


def test_a_run_of_a_table_without_redshifts_stops_at_the_catalogue(tmp_path: Path) -> None:
    path = csv(tmp_path, "ra,dec\n1,2\n3,4\n")
    store = tmp_path / "store"
    done = CliRunner().invoke(app, ["run", "--survey", "table", "--table", str(path), "--store", str(store)])
    assert isinstance(done.exception, BadInput) and "--columns z_spec=NAME" in str(done.exception)
    assert not (store / "shards").exists()
