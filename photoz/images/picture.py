"""JPEGs from outside: their shape and pixels, or why there are none."""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from photoz.jpeg import jpeg_header

JPEG_START = b"\xff\xd8\xff"
MAX_PIXELS = 2**26  # 8192 x 8192: more is a decompression bomb, not a galaxy


class NoCutout(Exception):
    """A galaxy has no usable image: `reason` is a word for counting, `detail` says it in full."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def jpeg_shape(data: bytes) -> tuple[int, int, int]:
    """(height, width, channels) from a JPEG's header. Raises NoCutout if it is no JPEG, or far too large."""
    if not data.startswith(JPEG_START):
        start = " ".join(data[:60].decode("latin-1").split())
        raise NoCutout("not_an_image", f"{len(data)} bytes that start with {start!r}")
    try:
        height, width, colours = jpeg_header(data)
    except ValueError as error:
        raise NoCutout("corrupt", f"JPEG header: {error}") from None
    channels = {"Gray": 1, "YCbCr": 3, "RGB": 3}.get(colours)
    if channels is None:
        raise NoCutout("not_colour", f"colour space {colours}, expected RGB or grey")
    if height * width > MAX_PIXELS:
        raise NoCutout("too_large", f"{width}x{height} px, at most {MAX_PIXELS} in all")
    return height, width, channels


def decode_jpeg(data: bytes, channels: int) -> NDArray[np.uint8]:
    """(h, w, c) of a JPEG. Raises NoCutout if it is truncated or corrupt."""
    try:
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY")
    except ValueError as error:
        raise NoCutout("corrupt", str(error)) from None
    return image
