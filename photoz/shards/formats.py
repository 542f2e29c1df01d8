"""Image files of users -> numpy arrays. Sizes are read from headers and bounded before anything is unpacked.

FITS follows the FITS standard 4.0 (Pence et al. 2010 and its revision), NPY numpy's format 1 to 3.
"""

import ast
import io
import math
import re
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from photoz.survey.fits_header import GZIP_START, Header, fits_units, gunzip, real, whole
from photoz.survey.picture import MAX_PIXELS, NoCutout

Array = NDArray[np.generic]

MAX_FILE_BYTES = 2**29
NPY_START, PNG_START, FITS_START = b"\x93NUMPY", b"\x89PNG\r\n\x1a\n", b"SIMPLE  ="
_NPY_HEADER_BYTES = 2**16
_FITS_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_NPY_NUMBERS = re.compile(r"[<>|=]([iu][1248]|f(2|4|8|16))")
_MOST_AXES = 8  # numpy has 64; an image has 2 or 3
# What Pillow trips over in broken files. It bounds what text and profile chunks unzip to by itself.
_PNG_FAULTS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_PNG_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


def read_array(data: bytes) -> Array:
    """The pixels of an NPY, PNG or FITS file (gzipped or not), axes as stored. Raises NoCutout, saying why."""
    if data.startswith(GZIP_START):
        try:
            data = gunzip(data, MAX_FILE_BYTES)
        except ValueError as error:
            raise NoCutout("corrupt", _one_line(error)) from None
    if data.startswith(NPY_START):
        return _read_npy(data)
    if data.startswith(PNG_START):
        return _read_png(data)
    if data.startswith(FITS_START):
        return _read_fits(data)
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
        header = ast.literal_eval(data[start:end].decode("latin-1").strip())
        descr, fortran, shape = str(header["descr"]), bool(header["fortran_order"]), header["shape"]
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


def _read_fits(data: bytes) -> Array:
    """The first image in the file; rows as stored (FITS counts them from below), scaled by BSCALE and BZERO."""
    try:
        for header, start, _ in fits_units(data):
            axes = whole(header, "NAXIS")
            if "ZIMAGE" in header:
                raise NoCutout("not_supported", "tile-compressed FITS; unpack it with funpack")
            if axes >= 2 and header.get("XTENSION", "'IMAGE").startswith("'IMAGE") and "GROUPS" not in header:
                shape = tuple(whole(header, f"NAXIS{n}") for n in range(axes, 0, -1))
                _check_size(shape)
                return _fits_pixels(data, header, start, shape)
    except ValueError as error:
        raise NoCutout("corrupt", _one_line(error)) from None
    raise NoCutout("empty", "FITS file without an image")


def _fits_pixels(data: bytes, header: Header, start: int, shape: tuple[int, ...]) -> Array:
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
