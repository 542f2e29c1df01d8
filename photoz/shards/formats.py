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

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from photoz.survey.picture import MAX_PIXELS, NoCutout

Array = NDArray[np.generic]

MAX_FILE_BYTES = 2**29
NPY_START, PNG_START, FITS_START, GZIP_START = b"\x93NUMPY", b"\x89PNG\r\n\x1a\n", b"SIMPLE  =", b"\x1f\x8b"
_NPY_HEADER_BYTES = 2**16
_FITS_BLOCK, _CARD = 2880, 80
_FITS_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_NPY_NUMBERS = re.compile(r"[<>|=][iuf](1|2|4|8|16)")
_PNG_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


def read_array(data: bytes) -> Array:
    """The pixels of an NPY, PNG or FITS file (gzipped or not), axes as stored. Raises NoCutout, saying why."""
    if data.startswith(GZIP_START):
        data = _unzip(data)
    if data.startswith(NPY_START):
        return _read_npy(data)
    if data.startswith(PNG_START):
        return _read_png(data)
    if data.startswith(FITS_START):
        return _read_fits(data)
    raise NoCutout("not_an_image", f"{len(data)} bytes that start with {data[:12]!r}; expected JPEG, PNG, NPY or FITS")


def _unzip(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        unzipped = stream.decompress(data, MAX_FILE_BYTES)
    except zlib.error as error:
        raise NoCutout("corrupt", str(error)) from None
    if not stream.eof:
        raise NoCutout("corrupt", f"gzip data cut short, or more than {MAX_FILE_BYTES} bytes unzipped")
    return unzipped


def _check_size(shape: tuple[int, ...]) -> None:
    if not shape or min(shape) < 1:
        raise NoCutout("empty", f"an array of shape {shape} has no pixels")
    if math.prod(shape) > MAX_PIXELS:
        raise NoCutout("too_large", f"{'x'.join(map(str, shape))} values, at most {MAX_PIXELS} in all")


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
    if not isinstance(shape, tuple) or not all(isinstance(n, int) for n in shape):
        raise NoCutout("corrupt", f"NPY header: shape {str(shape)[:60]!r}")
    _check_size(shape)
    if not _NPY_NUMBERS.fullmatch(descr):
        raise NoCutout("not_numbers", f"NPY of type {descr[:60]!r}; expected integers or floats")
    kind = np.dtype(descr)
    if len(data) - end != math.prod(shape) * kind.itemsize:
        raise NoCutout("corrupt", f"NPY of {shape} {kind} holds {len(data) - end} bytes of pixels")
    return np.frombuffer(data, kind, offset=end).reshape(shape, order="F" if fortran else "C")


def _read_png(data: bytes) -> Array:
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    _check_size((height, width))
    if len(data) < 33:
        raise NoCutout("corrupt", "PNG header is cut short")
    depth, colour_type = data[24], data[25]
    if depth == 16 and colour_type != 0:
        raise NoCutout("not_supported", "16-bit colour PNG; save it as NPY")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            if picture.mode.startswith("I"):
                return np.asarray(picture, np.uint16)
            return np.asarray(_without_alpha(picture))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        raise NoCutout("corrupt", _one_line(error)) from None


def _without_alpha(picture: Image.Image) -> Image.Image:
    if picture.mode in ("LA", "RGBA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA" if picture.mode not in ("L", "LA") else "LA")
        if picture.getextrema()[-1] != (255, 255):
            raise NoCutout("not_supported", "PNG with see-through pixels; save it without transparency")
        picture = picture.convert("RGB" if picture.mode == "RGBA" else "L")
    if picture.mode not in _PNG_MODES:
        raise NoCutout("not_supported", f"PNG of mode {picture.mode}; expected grey or RGB")
    return picture.convert(_PNG_MODES[picture.mode])


def _read_fits(data: bytes) -> Array:
    """The first image in the file; rows as stored (FITS counts them from below), scaled by BSCALE and BZERO."""
    for header, start in _fits_units(data):
        axes = _integer(header, "NAXIS")
        if "ZIMAGE" in header:
            raise NoCutout("not_supported", "tile-compressed FITS; unpack it with funpack")
        if axes >= 2 and header.get("XTENSION", "'IMAGE").startswith("'IMAGE") and "GROUPS" not in header:
            shape = tuple(_integer(header, f"NAXIS{n}") for n in range(axes, 0, -1))
            _check_size(shape)
            return _fits_pixels(data, header, start, shape)
    raise NoCutout("empty", "FITS file without an image")


def _fits_units(data: bytes) -> Iterator[tuple[dict[str, str], int]]:
    """Each header of a FITS file as raw text by keyword, and where its data start."""
    at = 0
    while at < len(data):
        header: dict[str, str] = {}
        while "END" not in header:
            block = data[at : at + _FITS_BLOCK]
            if len(block) < _FITS_BLOCK:
                raise NoCutout("corrupt", "FITS header is cut short")
            header |= _fits_cards(block)
            at += _FITS_BLOCK
        yield header, at
        sizes = [_integer(header, f"NAXIS{n}") for n in range(1, _integer(header, "NAXIS") + 1)]
        values = (math.prod(sizes) if sizes else 0) + _integer(header, "PCOUNT", 0)
        size = abs(_integer(header, "BITPIX")) // 8 * values * _integer(header, "GCOUNT", 1)
        if size < 0:
            raise NoCutout("corrupt", "FITS header gives a negative size")
        at += -(-size // _FITS_BLOCK) * _FITS_BLOCK


def _fits_cards(block: bytes) -> dict[str, str]:
    cards: dict[str, str] = {}
    for at in range(0, _FITS_BLOCK, _CARD):
        card = block[at : at + _CARD].decode("latin-1")
        keyword = card[:8].rstrip()
        if keyword == "END":
            return cards | {"END": ""}
        if card[8:10] == "= ":
            value = card[10:]
            cards[keyword] = value.strip() if value.lstrip().startswith("'") else value.partition("/")[0].strip()
    return cards


def _integer(header: dict[str, str], keyword: str, default: int | None = None) -> int:
    text = header.get(keyword)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise NoCutout("corrupt", f"FITS keyword {keyword} = {text!r}; expected a whole number") from None


def _real(header: dict[str, str], keyword: str, default: float) -> float:
    text = header.get(keyword)
    try:
        return float(text.replace("D", "E")) if text else default
    except ValueError:
        raise NoCutout("corrupt", f"FITS keyword {keyword} = {text!r}; expected a number") from None


def _fits_pixels(data: bytes, header: dict[str, str], start: int, shape: tuple[int, ...]) -> Array:
    bits = _integer(header, "BITPIX")
    if bits not in _FITS_TYPES:
        raise NoCutout("corrupt", f"FITS keyword BITPIX = {bits}")
    count = math.prod(shape)
    if len(data) - start < count * abs(bits) // 8:
        raise NoCutout("corrupt", f"FITS image of {shape} is cut short")
    stored = np.frombuffer(data, _FITS_TYPES[bits], count, start).reshape(shape)
    scale, zero = _real(header, "BSCALE", 1.0), _real(header, "BZERO", 0.0)
    missing = stored == _integer(header, "BLANK") if bits > 0 and "BLANK" in header else None
    if (scale, zero) == (1.0, 0.0) and missing is None:
        return stored
    with np.errstate(over="ignore", invalid="ignore"):  # seen later as values that are not finite
        scaled = stored * scale + zero
    if missing is not None:
        scaled[missing] = np.nan
    return scaled


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
