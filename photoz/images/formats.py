"""Image files of users -> numpy arrays. Sizes are read from headers and bounded before anything is unpacked.

FITS follows the FITS standard 4.0 (Pence et al. 2010 and its revision), NPY numpy's format 1 to 3.
"""

import ast
import io
import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from photoz.images.picture import MAX_PIXELS, NoCutout
from photoz.tables.fits_header import GZIP_START, Header, fits_units, gunzip, real, whole
from photoz.tables.units import one_spelling

Array = NDArray[np.generic]

MAX_FILE_BYTES = 2**29
NPY_START, PNG_START, FITS_START = b"\x93NUMPY", b"\x89PNG\r\n\x1a\n", b"SIMPLE  ="
_NPY_HEADER_BYTES = 2**16
_FITS_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_NPY_NUMBERS = re.compile(r"[<>|=]?([iu][1248]|f(2|4|8|16))")
# Words in the names of HDUs that describe an image.
_ABOUT_PIXELS = {
    "mask", "msk", "dq", "dqm", "flag", "flags", "wht", "wt", "weight", "weights", "ivar", "invvar", "var", "variance",
    "err", "error", "errors", "sigma", "rms", "unc", "uncert", "std", "stat", "seg", "segm", "segmap", "segmentation",
    "exp", "exposure", "cov", "coverage", "nexp", "nimage", "psf", "ctx", "con", "noise",
    "bkg", "bg", "back", "background", "sky", "model", "mod", "resid", "residual", "residuals", "chi",
}  # fmt: skip
_SCIENCE = {"sci", "science", "image", "data"}
_MOST_AXES = 8  # numpy has 64; an image has 2 or 3
# What Pillow trips over in broken files. It bounds what text and profile chunks unzip to by itself.
_PNG_FAULTS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_PNG_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


def unpacked(data: bytes) -> bytes:
    """A file's bytes, unzipped if they are gzipped. Raises NoCutout if they can't be."""
    if not data.startswith(GZIP_START):
        return data
    try:
        return gunzip(data, MAX_FILE_BYTES)
    except ValueError as error:
        raise NoCutout("corrupt", _one_line(error)) from None


def read_array(data: bytes, hdus: tuple[str, ...] = ()) -> Array:
    """The pixels of an NPY, PNG or FITS file (gzipped or not), axes as stored. Raises NoCutout, saying why.

    `hdus` are a FITS file's HDUs to read, several of them stacked; without, see `FitsImages`.
    """
    data = unpacked(data)
    if data.startswith(NPY_START):
        return _read_npy(data)
    if data.startswith(PNG_START):
        return _read_png(data)
    if data.startswith(FITS_START):
        return _read_fits(data, hdus)
    raise NoCutout("not_an_image", f"{len(data)} bytes that start with {data[:12]!r}; expected JPEG, PNG, NPY or FITS")


def _check_size(shape: tuple[int, ...]) -> None:
    if len(shape) > _MOST_AXES:
        raise NoCutout("wrong_shape", f"an array of {len(shape)} axes, at most {_MOST_AXES}")
    if not shape or min(shape) < 1:
        raise NoCutout("empty", f"an array of shape {shape} has no pixels")
    if math.prod(shape) > MAX_PIXELS:
        raise NoCutout("too_large", f"{'x'.join(map(str, shape))[:60]} values, at most {MAX_PIXELS} in all")


def _read_npy(data: bytes) -> Array:
    wide = data[6:7] != b"\x01"  # versions 2 and 3 have a 4-byte header length
    start = 12 if wide else 10
    end = start + int.from_bytes(data[8:start], "little")
    if end - start > _NPY_HEADER_BYTES:
        raise NoCutout("corrupt", f"NPY header of {end - start} bytes")
    try:
        # Python 2 wrote its longs with an L: (32L, 32L).
        text = re.sub(r"(?<=\d)L(?=[,)\s])", "", data[start:end].decode("latin-1").strip())
        header = ast.literal_eval(text)
        kind, fortran, shape = header["descr"], bool(header["fortran_order"]), header["shape"]
        descr = kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise NoCutout("corrupt", f"NPY header: {_one_line(error)}") from None
    if not isinstance(shape, tuple) or not all(type(n) is int for n in shape):  # True is an int, and no size
        raise NoCutout("corrupt", f"NPY header: shape {str(shape)[:60]!r}")
    _check_size(shape)
    if not _NPY_NUMBERS.fullmatch(descr):
        raise NoCutout("not_numbers", f"NPY of type {descr[:60]!r}; expected integers or floats")
    kind = np.dtype(descr)
    if len(data) - end != math.prod(shape) * kind.itemsize:
        raise NoCutout("corrupt", f"NPY of {shape} {kind} holds {len(data) - end} bytes of pixels")
    return np.frombuffer(data, kind, offset=end).reshape(shape, order="F" if fortran else "C")


def _read_png(data: bytes) -> Array:
    width, height, depth, colour_type = _png_header(data)
    _check_size((height, width))
    if depth == 16 and colour_type != 0:
        raise NoCutout("not_supported", "16-bit colour PNG; save it as NPY")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.size != (width, height):  # a second IHDR further on
                raise NoCutout("corrupt", f"PNG of {width}x{height} and of {'x'.join(map(str, picture.size))} px")
            picture.load()
            if picture.mode.startswith("I"):
                return np.asarray(picture, np.uint16)
            return np.asarray(_without_alpha(picture))
    except _PNG_FAULTS as error:
        raise NoCutout("corrupt", _one_line(error)) from None


def _png_header(data: bytes) -> tuple[int, int, int, int]:
    """Width, height, bits and colour type, from the chunk that has to come first."""
    if len(data) < 33 or data[8:16] != b"\0\0\0\x0dIHDR":
        raise NoCutout("corrupt", "PNG header is cut short, or is not what comes first")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"), data[24], data[25]


def _without_alpha(picture: Image.Image) -> Image.Image:
    if picture.mode in ("LA", "RGBA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA" if picture.mode not in ("L", "LA") else "LA")
        if picture.getextrema()[-1] != (255, 255):
            raise NoCutout("not_supported", "PNG with see-through pixels; save it without transparency")
        picture = picture.convert("RGB" if picture.mode == "RGBA" else "L")
    if picture.mode not in _PNG_MODES:
        raise NoCutout("not_supported", f"PNG of mode {picture.mode}; expected grey or RGB")
    wanted = _PNG_MODES[picture.mode]
    return picture if picture.mode == wanted else picture.convert(wanted)


@dataclass(frozen=True)
class FitsImage:
    """An HDU that holds an image: its number (the primary is 0), its EXTNAME if any, and where its pixels are."""

    number: int
    name: str
    header: Header
    start: int

    def __str__(self) -> str:
        return f"{self.number} {self.name}".rstrip()

    @property
    def compressed(self) -> bool:
        """Whether it is an image in tiles, in a table."""
        return "ZIMAGE" in self.header

    @property
    def whole_numbers(self) -> bool:
        """Whether it stores integers that nothing scales, as masks do."""
        bits = whole(self.header, "ZBITPIX" if self.compressed else "BITPIX")
        return bits > 0 and real(self.header, "BSCALE", 1.0) == 1.0

    @property
    def about_pixels(self) -> bool:
        """Whether its name says that it is a mask, a weight or an error: DQ, WHT_G, mask2."""
        return not _ABOUT_PIXELS.isdisjoint(self._words)

    @property
    def science(self) -> bool:
        """Whether its name says that it is the image: SCI, science_g."""
        return not _SCIENCE.isdisjoint(self._words)

    @property
    def _words(self) -> list[str]:
        return re.split(r"[^a-z]+", self.name.lower())

    @property
    def unit(self) -> str:
        """BUNIT in one spelling, empty where it is not said."""
        stated = _text(self.header, "BUNIT")
        return one_spelling(stated) if stated else ""


@dataclass(frozen=True)
class FitsImages:
    """The images of a FITS file, and those of them that are read.

    Without `hdus` it is the first image that is no mask, weight, error map or background: neither by its name, nor by
    holding integers where another holds decimal numbers. One whose name says `science` comes first.
    """

    there: tuple[FitsImage, ...]
    read: tuple[FitsImage, ...]

    @classmethod
    def of(cls, data: bytes, hdus: tuple[str, ...]) -> "FitsImages":
        """Find them. Raises NoCutout where there is none, or none that can be told from masks; ValueError for junk."""
        there = tuple(_fits_images(data))
        if not there:
            raise NoCutout("empty", "FITS file without an image")
        return cls(there, tuple(_named(there, hdu) for hdu in hdus) if hdus else (_likely(there),))

    @property
    def unit(self) -> str:
        """The unit of all that is read, empty where no HDU says any. Raises NoCutout where they say several."""
        units = {image.unit for image in self.read} - {""}
        if len(units) > 1:
            raise NoCutout("other_unit", f"HDUs in several units: {', '.join(sorted(units))}; choose others with --hdu")
        return units.pop() if units else ""

    def __str__(self) -> str:
        return ", ".join(map(str, self.there))


def _fits_images(data: bytes) -> Iterator[FitsImage]:
    for number, (header, start, _) in enumerate(fits_units(data)):
        plain = header.get("XTENSION", "'IMAGE").startswith("'IMAGE") and "GROUPS" not in header
        sizes = [whole(header, f"NAXIS{n}") for n in range(1, whole(header, "NAXIS") + 1)]
        # A primary HDU without pixels may say so by axes of 0.
        if "ZIMAGE" in header or (plain and len(sizes) >= 2 and min(sizes) > 0):
            yield FitsImage(number, _text(header, "EXTNAME"), header, start)


def _named(there: tuple[FitsImage, ...], hdu: str) -> FitsImage:
    found = [image for image in there if hdu in (str(image.number), image.name) or hdu.lower() == image.name.lower()]
    if len(found) != 1:
        times = "no image" if not found else "several images"
        raise NoCutout("no_hdu", f"{times} {hdu} in a FITS file with {', '.join(map(str, there))}; see --hdu")
    return found[0]


def _likely(there: tuple[FitsImage, ...]) -> FitsImage:
    if len(there) == 1:
        return there[0]
    named = [image for image in there if not image.about_pixels]
    named = [image for image in named if image.science] or named
    decimal = [image for image in named if not image.whole_numbers]
    if not named:
        raise NoCutout("ambiguous_hdu", f"which image of {', '.join(map(str, there))} is the galaxy's? say --hdu N")
    return (decimal or named)[0]


def _text(header: Header, keyword: str) -> str:
    """A keyword's text without its quotes and trailing spaces."""
    quoted = re.match(r"'((?:[^']|'')*)'", header.get(keyword, ""))
    return quoted[1].replace("''", "'").strip() if quoted else ""


def _read_fits(data: bytes, hdus: tuple[str, ...]) -> Array:
    """The image that is meant; rows as stored (FITS counts them from below), scaled by BSCALE and BZERO."""
    try:
        planes = [_fits_pixels(data, image) for image in FitsImages.of(data, hdus).read]
    except ValueError as error:
        raise NoCutout("corrupt", _one_line(error)) from None
    if len(planes) == 1:
        return planes[0]
    if {plane.ndim for plane in planes} != {2} or len({plane.shape for plane in planes}) > 1:
        shapes = ", ".join(str(plane.shape) for plane in planes)
        raise NoCutout("wrong_shape", f"--hdu {','.join(hdus)}: HDUs of {shapes}; expected (h, w), the same for all")
    return np.stack(planes)


def _fits_pixels(data: bytes, image: FitsImage) -> Array:
    header, start = image.header, image.start
    if image.compressed:
        raise NoCutout("not_supported", "tile-compressed FITS; unpack it with funpack")
    shape = tuple(whole(header, f"NAXIS{n}") for n in range(whole(header, "NAXIS"), 0, -1))
    _check_size(shape)
    bits = whole(header, "BITPIX")
    if bits not in _FITS_TYPES:
        raise NoCutout("corrupt", f"FITS keyword BITPIX = {bits}")
    count = math.prod(shape)
    if len(data) - start < count * abs(bits) // 8:
        raise NoCutout("corrupt", f"FITS image of {shape} is cut short")
    stored = np.frombuffer(data, _FITS_TYPES[bits], count, start).reshape(shape)
    scale, zero = real(header, "BSCALE", 1.0), real(header, "BZERO", 0.0)
    missing = stored == whole(header, "BLANK") if bits > 0 and "BLANK" in header else None
    if (scale, zero) == (1.0, 0.0) and missing is None:
        return stored
    with np.errstate(over="ignore", invalid="ignore"):  # seen later as values that are not finite
        scaled = stored * scale + zero
    if missing is not None:
        scaled[missing] = np.nan
    return scaled


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
