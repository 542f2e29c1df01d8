"""Users' NPY, PNG and FITS files become arrays, or say why not, and never anything else."""

import gzip
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from photoz.images.formats import FitsImages, read_array
from photoz.images.picture import NoCutout
from photoz.images.stamps import AmbiguousAxes, centre_crop, check_values, stamp_dtype, to_chw
from photoz.surveys.sdss.sky_jpeg import check_jpeg
from tests.shards_support import flat_jpeg, noise_jpeg

RNG = np.random.default_rng(0)
CUBE = RNG.normal(size=(5, 12, 10))


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    sink = io.BytesIO()
    np.lib.format.write_array(sink, array, version)
    return sink.getvalue()


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    sink = io.BytesIO()
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(sink, "PNG")
    return sink.getvalue()


def fits_file(*units: object) -> bytes:
    sink = io.BytesIO()
    fits.HDUList(list(units)).writeto(sink)
    return sink.getvalue()


def reason(data: bytes) -> str:
    with pytest.raises(NoCutout) as caught:
        read_array(data)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8", "<f2", "|u1", "<u2", ">i2", "<i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_number_type_and_order(kind: str, order: str) -> None:
    array = np.asarray(CUBE * 50 + 100, kind, order=order)
    assert np.array_equal(read_array(npy(array)), array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_of_every_version(version: tuple[int, int]) -> None:
    assert np.array_equal(read_array(npy(CUBE, version)), CUBE)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.array([{"a": 1}], object), "not_numbers"),
        (np.zeros((4, 4), [("x", "f4")]), "not_numbers"),
        (np.zeros((4, 4), complex), "not_numbers"),
        (np.zeros((4, 4), bool), "not_numbers"),
        (np.zeros((0, 4)), "empty"),
        (np.array(1.0), "empty"),
    ],
)
def test_npy_of_other_things_is_refused(array: np.ndarray, why: str) -> None:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=True)
    assert reason(sink.getvalue()) == why


def test_a_header_that_promises_a_huge_array_is_refused_before_memory_is_taken() -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + b"\n"
    assert reason(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header) == "too_large"
    chunk = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    huge = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + chunk + struct.pack(">I", zlib.crc32(b"IHDR" + chunk))
    )
    assert reason(huge) == "too_large"
    primary = fits.PrimaryHDU(np.zeros((2, 2))).header
    primary["NAXIS1"] = primary["NAXIS2"] = 10**6
    assert reason(primary.tostring(padding=True).encode()) == "too_large"


@pytest.mark.parametrize("file", [npy(CUBE), fits_file(fits.PrimaryHDU(CUBE)), png(np.uint8(CUBE[0] * 9 + 99))])
def test_a_file_cut_short_anywhere_is_refused(file: bytes) -> None:
    whole = read_array(file)
    for end in range(0, len(file) - 1, 97):
        try:
            # PNG readers can do without the closing chunk, and FITS pads with zeros: then all pixels must be there.
            assert np.array_equal(read_array(file[:end]), whole)
        except NoCutout:
            continue


@given(st.sampled_from([npy(CUBE), fits_file(fits.PrimaryHDU(CUBE)), png(np.uint8(CUBE[0] * 9 + 99))]), st.data())
def test_a_damaged_file_gives_an_array_or_a_reason(file: bytes, data: st.DataObject) -> None:
    damaged = bytearray(file)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, min(len(file), 4000) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(read_array(bytes(damaged)), np.ndarray)
    except NoCutout as fault:
        assert fault.reason


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "RGBA", "LA"])
def test_png_of_every_8_bit_kind(mode: str) -> None:
    pixels = RNG.integers(0, 256, (12, 10, 3)).astype(np.uint8)
    array = read_array(png(pixels, mode))
    assert array.dtype == np.uint8
    assert array.shape == ((12, 10) if mode in ("L", "1", "LA") else (12, 10, 3))
    if mode in ("RGB", "RGBA"):
        assert np.array_equal(array, pixels)


def test_png_of_16_bits_keeps_them() -> None:
    deep = RNG.integers(0, 65536, (12, 10)).astype(np.uint16)
    array = read_array(png(deep))
    assert array.dtype == np.uint16 and np.array_equal(array, deep)


def test_png_that_would_lose_something_is_refused() -> None:
    see_through = RNG.integers(0, 255, (12, 10, 4)).astype(np.uint8)
    assert reason(png(see_through)) == "not_supported"
    colour_16_bit = bytearray(png(np.zeros((4, 4, 3), np.uint8)))
    colour_16_bit[24] = 16
    assert reason(bytes(colour_16_bit)) == "not_supported"


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "i8", "f4", "f8", "u2", "u4"])
def test_fits_pixels_are_astropy_s(kind: str) -> None:
    array = (CUBE * 50 + 100).astype(kind)
    file = fits_file(fits.PrimaryHDU(array))
    assert np.array_equal(read_array(file), array)
    assert np.array_equal(read_array(gzip.compress(file)), array)


def test_fits_image_in_an_extension_after_a_table() -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("a", "D", array=np.arange(700.0))])
    file = fits_file(fits.PrimaryHDU(), table, fits.ImageHDU(CUBE.astype("f4")))
    assert np.array_equal(read_array(file), CUBE.astype("f4"))


def test_fits_with_scale_and_blank_is_scaled_and_its_blanks_are_not_numbers() -> None:
    unit = fits.PrimaryHDU(np.arange(12, dtype="i2").reshape(3, 4))
    unit.header["BSCALE"], unit.header["BZERO"], unit.header["BLANK"] = 0.5, 10.0, 3
    with np.errstate(invalid="ignore"):
        found = read_array(fits_raw(unit))
    assert found[0, 1] == 10.5 and np.isnan(found[0, 3])


def fits_raw(unit: fits.PrimaryHDU) -> bytes:
    """Header and data as they are, without astropy's own scaling."""
    data = np.ascontiguousarray(unit.data, ">i2").tobytes()
    return unit.header.tostring(padding=True).encode() + data.ljust(-(-len(data) // 2880) * 2880, b"\0")


def test_fits_without_an_image_or_compressed_is_refused() -> None:
    assert reason(fits_file(fits.PrimaryHDU())) == "empty"
    assert reason(fits_file(fits.PrimaryHDU(), fits.CompImageHDU(CUBE[0].astype("f4")))) == "not_supported"


@pytest.mark.parametrize("descr", ["'<f4'", "u'<f4'", "b'<f4'"])
def test_npy_headers_of_python_2_are_read(descr: str) -> None:
    array = CUBE[:, :7, :6].astype("<f4")
    shape = "({}L, {}L, {}L)".format(*array.shape)
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}   ".encode().ljust(117) + b"\n"
    file = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + array.tobytes()
    assert np.array_equal(read_array(file), array)


def test_an_empty_primary_hdu_with_axes_of_0_is_passed_over() -> None:
    primary = fits.PrimaryHDU().header.tostring().encode()
    empty = primary.replace(b"NAXIS   =                    0", b"NAXIS   =                    2")
    cards = b"".join(f"NAXIS{n}  =                    0".ljust(80).encode() for n in (1, 2))
    at = empty.index(b"NAXIS   =") + 80
    empty = (empty[:at] + cards + empty[at:]).rstrip(b" ").ljust(2880)
    assert np.array_equal(read_array(empty + fits_file(fits.PrimaryHDU(), image("SCI"))[2880:]), PLANES["SCI"])


PLANES = {name: (RNG.normal(size=(12, 10)) * 100).astype("f4") for name in ("SCI", "G", "R", "I", "ERR", "WHT_G")}
PLANES["G_MASK"], PLANES["DQ"] = (RNG.integers(0, 2, (12, 10)).astype("i2") for _ in range(2))
PLANES["COUNTS"] = RNG.integers(0, 999, (12, 10)).astype("i4")


def image(name: str, unit: str = "") -> fits.ImageHDU:
    return fits.ImageHDU(PLANES[name], fits.Header({"BUNIT": unit} if unit else {}), name)


def several(*names: str) -> bytes:
    return fits_file(fits.PrimaryHDU(), *map(image, names))


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["DQ", "SCI"], "SCI"),
        (["ERR", "SCI", "DQ"], "SCI"),
        (["WHT_G", "G_MASK", "G"], "G"),
        (["COUNTS", "SCI"], "SCI"),  # integers where another holds decimal numbers
        (["COUNTS", "DQ"], "COUNTS"),
        (["G", "R", "I"], "G"),
        (["DQ"], "DQ"),
    ],
)
def test_of_several_images_the_first_that_is_no_mask_is_read(names: list[str], read: str) -> None:
    assert np.array_equal(read_array(several(*names)), PLANES[read])
    assert np.array_equal(read_array(gzip.compress(several(*names))), PLANES[read])


def test_where_all_images_look_like_masks_one_has_to_be_named() -> None:
    assert reason(several("DQ", "ERR")) == "ambiguous_hdu"
    assert np.array_equal(read_array(several("DQ", "ERR"), ("err",)), PLANES["ERR"])


def test_an_hdu_is_named_by_number_or_name_and_several_are_stacked_as_bands() -> None:
    file = several("G", "DQ", "R")
    assert np.array_equal(read_array(file, ("2",)), PLANES["DQ"])
    assert np.array_equal(read_array(file, ("R",)), PLANES["R"])
    assert np.array_equal(read_array(file, ("3", "g")), np.stack([PLANES["R"], PLANES["G"]]))
    for hdus, why in [(("4",), "no_hdu"), (("0",), "no_hdu"), (("I",), "no_hdu")]:
        with pytest.raises(NoCutout, match=f"{why}: no image {hdus[0]} in a FITS file with 1 G, 2 DQ, 3 R"):
            read_array(file, hdus)
    with pytest.raises(NoCutout, match="no_hdu: several images SCI"):
        read_array(several("SCI", "SCI"), ("SCI",))


@pytest.mark.parametrize(
    ("primary", "names", "read"),
    [
        ("i2", ["BACKGROUND"], "0"),
        ("f4", ["SCI"], "1 SCI"),
        ("f4", ["MODEL", "RESID_G"], "0"),
        ("f4", ["IMAGE"], "1 IMAGE"),
    ],
)
def test_of_several_images_the_galaxy_is_read_and_no_background(primary: str, names: list[str], read: str) -> None:
    others = (fits.ImageHDU(PLANES["G"], name=name) for name in names)
    data = fits_file(fits.PrimaryHDU(PLANES["R"].astype(primary)), *others)
    (chosen,) = FitsImages.of(data, ()).read
    assert str(chosen) == read


def test_hdus_of_different_shapes_or_units_are_not_stacked() -> None:
    small = fits.ImageHDU(PLANES["R"][:8], name="R")
    with pytest.raises(NoCutout, match=r"wrong_shape: --hdu G,R: HDUs of \(12, 10\), \(8, 10\)"):
        read_array(fits_file(fits.PrimaryHDU(), image("G"), small), ("G", "R"))
    mixed = fits_file(fits.PrimaryHDU(), image("G", "nmgy"), image("R", "Jy"))
    with pytest.raises(NoCutout, match="other_unit: HDUs in several units: Jy, nmgy"):
        _ = FitsImages.of(mixed, ("G", "R")).unit
    assert FitsImages.of(mixed, ()).unit == "nmgy"


def test_other_files_are_refused_by_their_first_bytes() -> None:
    assert reason(b"GIF89a...") == "not_an_image"
    assert reason(b"") == "not_an_image"
    assert reason(gzip.compress(b"text")) == "not_an_image"
    assert reason(gzip.compress(npy(CUBE))[:-9]) == "corrupt"


@pytest.mark.parametrize(
    ("shape", "axes", "channels"),
    [
        ((64, 60), None, 1),
        ((5, 64, 64), None, 5),
        ((64, 64, 5), None, 5),
        ((1, 5, 64, 64), None, 5),
        ((64, 64, 1), None, 1),
        ((4, 4, 4), "chw", 4),
        ((100, 64, 64), "chw", 100),
        ((64, 64, 100), "hwc", 100),
    ],
)
def test_axes_are_told_apart_by_shape_or_as_said(shape: tuple[int, ...], axes: str | None, channels: int) -> None:
    assert to_chw(np.zeros(shape), axes).shape[0] == channels


@pytest.mark.parametrize("shape", [(4, 4, 4), (64, 64, 64), (64, 5, 64), (3, 64, 3), (100, 64, 64)])
def test_axes_that_the_shape_does_not_tell_apart_are_asked_for(shape: tuple[int, ...]) -> None:
    with pytest.raises(AmbiguousAxes, match="--axes chw or hwc"):
        to_chw(np.zeros(shape), None)


def test_values_keep_their_type_where_they_can() -> None:
    kinds = {
        "u1": "uint8",
        "i1": "int16",
        "i2": "int16",
        "u2": "float32",
        "i4": "float32",
        "f2": "float32",
        ">f8": "float32",
    }
    assert {kind: stamp_dtype(np.zeros(1, kind)) for kind in kinds} == kinds


def test_the_crop_is_about_the_centre() -> None:
    image = np.zeros((1, 65, 67))
    image[0, 32, 33] = 1
    assert np.argwhere(centre_crop(image, 33)[0]).tolist() == [[16, 16]]
    with pytest.raises(NoCutout, match="67x65 px, --size asks for 66"):
        centre_crop(image, 66)


@pytest.mark.parametrize(("bad", "why"), [(np.nan, "not_finite"), (np.inf, "not_finite"), (1.0, "blank")])
def test_values_that_are_not_finite_or_all_one_are_refused(bad: float, why: str) -> None:
    image = np.ones((1, 4, 4), np.float32)
    image[0, 0, 0] = bad
    with pytest.raises(NoCutout, match=why):
        check_values(image)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (lambda: noise_jpeg(1, 64)[:-2], "corrupt"),
        (lambda: noise_jpeg(1, 64)[:300], "corrupt"),
        (lambda: noise_jpeg(1, 63), "wrong_size"),
        (lambda: noise_jpeg(1, 64, "L"), "not_colour"),
        (lambda: noise_jpeg(1, 64, "CMYK"), "not_colour"),
        (lambda: flat_jpeg(64), "blank"),
        (lambda: flat_jpeg(64, words=True), "blank"),
        (lambda: b"<!DOCTYPE html>", "not_an_image"),
        (lambda: b"", "not_an_image"),
    ],
)
def test_a_jpeg_that_is_no_whole_colour_picture_is_refused(fault: Callable[[], bytes], why: str) -> None:
    with pytest.raises(NoCutout) as caught:
        check_jpeg(fault(), 64)
    assert caught.value.reason == why
