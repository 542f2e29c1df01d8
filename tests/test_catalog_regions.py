import json
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import Latitude, Longitude, SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st
from mocpy import MOC

from photoz.catalog.moc import MOST_COVER_BOXES, MocRegion, read_moc
from photoz.errors import BadInput
from photoz.regions import Box, Cone, parse_region

RNG = np.random.default_rng(3)
RA_DEG = RNG.uniform(0, 360, 20_000)
DEC_DEG = np.degrees(np.arcsin(RNG.uniform(-1, 1, 20_000)))
SKY = SkyCoord(RA_DEG, DEC_DEG, unit="deg")


def in_cover(boxes: list[Box]) -> np.ndarray:
    return np.any([box.contains(RA_DEG, DEC_DEG) for box in boxes], axis=0)


@settings(max_examples=150, deadline=None)
@given(ra=st.floats(0, 360), dec=st.floats(-90, 90), radius=st.floats(0.1, 90))
def test_a_cone_holds_what_astropy_says_and_its_box_covers_it(ra: float, dec: float, radius: float) -> None:
    cone = parse_region(f"cone {ra} {dec} {radius}")
    separation = SkyCoord(ra, dec, unit="deg").separation(SKY).deg
    inside = cone.contains(RA_DEG, DEC_DEG)
    clear = np.abs(separation - radius) > 1e-9
    assert np.array_equal(inside[clear], (separation <= radius)[clear])
    assert np.all(in_cover(cone.boxes())[inside])


@settings(max_examples=150, deadline=None)
@given(ra_min=st.floats(0, 360), width=st.floats(0.5, 359), dec_min=st.floats(-90, 80), height=st.floats(0.5, 90))
def test_a_box_wraps_at_ra_0_and_its_padded_cover_is_larger(
    ra_min: float, width: float, dec_min: float, height: float
) -> None:
    ra_max, dec_max = (ra_min + width) % 360, min(90.0, dec_min + height)
    box = parse_region(f"box {ra_min} {ra_max} {dec_min} {dec_max}")
    in_ra = (RA_DEG - ra_min) % 360 <= (ra_max - ra_min) % 360
    expected = in_ra & (dec_min <= DEC_DEG) & (dec_max >= DEC_DEG)
    assert np.array_equal(box.contains(RA_DEG, DEC_DEG), expected)
    padded = [part.padded(0.5) for part in box.boxes()]
    assert np.all(in_cover(padded)[expected])


def test_boxes_across_ra_0_can_be_given_either_way() -> None:
    assert parse_region("box 350 10 -1 1") == parse_region("box -10 10 -1 1") == Box(350, 10, -1, 1)
    assert parse_region("box 0 360 -1 1").boxes() == [Box(0, 360, -1, 1)]
    assert parse_region("cone, 180, 2, 1.5") == parse_region("cone 180 2 1.5") == Cone(180, 2, 1.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected"),
        ("circle 1 2 3", 'expected "cone RA DEC RADIUS"'),
        ("cone 180 2", 'expected "cone RA DEC RADIUS"'),
        ("cone 180 2 1 4", 'expected "cone RA DEC RADIUS"'),
        ("cone 180 two 1", 'expected "cone RA DEC RADIUS"'),
        ("cone nan 2 1", 'expected "cone RA DEC RADIUS"'),
        ("cone 180 95 1", "no such position"),
        ("cone 180 2 0", "radius 0"),
        ("cone 180 2 -1", "radius -1"),
        ("cone 180 2 120", "radius 120"),
        ("box 10 20 5", 'expected "box RA0 RA1 DEC0 DEC1"'),
        ("box 10 20 5 -5", "the box is empty"),
        ("box 10 10 -5 5", "the box is empty"),
        ("box 10 400 -5 5", "no such position"),
    ],
)
def test_regions_that_make_no_sense_are_refused(text: str, said: str) -> None:
    with pytest.raises(BadInput, match="--region") as refused:
        parse_region(text)
    assert said in str(refused.value)


@pytest.fixture(params=["fits", "json"])
def moc_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two patches of sky, one of them on RA 0 and one around the pole."""
    moc = MOC.from_cone(Longitude(0.5 * u.deg), Latitude(20 * u.deg), radius=6 * u.deg, max_depth=9)
    moc = moc.union(MOC.from_cone(Longitude(10 * u.deg), Latitude(89 * u.deg), radius=3 * u.deg, max_depth=9))
    path = tmp_path / f"area.{request.param}"
    moc.save(path, format=request.param)
    return path


def test_a_moc_is_covered_by_few_boxes_and_filtered_exactly(moc_file: Path) -> None:
    region = read_moc(moc_file)
    inside = region.contains(RA_DEG, DEC_DEG)
    assert 0 < inside.sum() < 400
    assert np.array_equal(inside, region.moc.contains_lonlat(Longitude(RA_DEG, u.deg), Latitude(DEC_DEG, u.deg)))
    boxes = region.boxes()
    assert len(boxes) <= MOST_COVER_BOXES
    assert np.all(in_cover(boxes)[inside])
    assert in_cover(boxes).mean() < 0.04  # the map itself is 0.0036 of the sky


@settings(max_examples=25, deadline=None)
@given(ra=st.floats(0, 360), dec=st.floats(-90, 90), radius=st.floats(0.5, 40), order=st.integers(0, 7))
def test_any_moc_is_covered_whole(ra: float, dec: float, radius: float, order: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        moc = MOC.from_cone(Longitude(ra * u.deg), Latitude(dec * u.deg), radius=radius * u.deg, max_depth=order)
    region = MocRegion(moc)
    assert np.all(in_cover(region.boxes())[region.contains(RA_DEG, DEC_DEG)])


def test_files_that_are_no_moc_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        read_moc(tmp_path / "none.fits")
    for name, content in (("text.fits", b"hello"), ("broken.json", b"{ not json"), ("half.fits", b"SIMPLE  =")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match="not a MOC"):
            read_moc(tmp_path / name)
    (tmp_path / "empty.json").write_text(json.dumps({"3": []}))
    with pytest.raises(BadInput, match="covers no sky"):
        read_moc(tmp_path / "empty.json")
