"""Is a JPEG a whole, colour picture of sky of the right size?"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from photoz.jpeg import jpeg_header

JPEG_START = b"\xff\xd8\xff"
MAX_PIXELS = 2**26  # 8192 x 8192: more is a decompression bomb, not a galaxy
# Off the footprint, or when its database fails, SkyServer answers with a message, white on black. Of 1,499 of its
# cutouts of galaxies none has more than 38 % of its pixels in one tone (averaged over 8x8 px: 51 %), a message in a
# corner has 80 % and more; none has more than 1 % of sharp edges, a message over all the picture has 7 to 15 %.
BLANK_SHARE = 0.75
EDGE_SHARE, EDGE_STEPS = 0.03, 100
GREY_SHARE, GREY_STEPS = 0.85, 16


class NoCutout(Exception):
    """A galaxy has no usable image: `reason` is a word for counting, `detail` says it in full."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def check_jpeg(data: bytes, size_px: int) -> None:
    """Raise NoCutout unless `data` is a whole, `size_px` squared colour JPEG of sky."""
    height, width, channels = jpeg_shape(data)
    if (height, width) != (size_px, size_px):
        raise NoCutout("wrong_size", f"{width}x{height} px instead of {size_px}x{size_px}")
    if channels != 3:
        raise NoCutout("not_colour", f"{channels} channels instead of 3")
    image = decode_jpeg(data, channels)
    if is_flat(image) or is_writing(image):
        raise NoCutout("blank", "one colour, or a message: off the survey's footprint, or its database failed")


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


def is_flat(image_hwc: NDArray[np.uint8]) -> bool:
    """Whether most of a picture is exactly one tone, in its middle channel and then in all."""
    for channel in (1, 0, 2):
        tones = np.bincount(image_hwc[..., channel].ravel(), minlength=256)
        if tones.max() <= BLANK_SHARE * tones.sum():
            return False
    return True


def is_writing(image_hwc: NDArray[np.uint8]) -> bool:
    """Whether a picture is grey and full of sharp edges, as writing is and no telescope's image can be."""
    green = image_hwc[..., 1].astype(np.int16)
    if np.mean(np.abs(np.diff(green, axis=1)) > EDGE_STEPS) <= EDGE_SHARE:
        return False
    colour = image_hwc.max(axis=2) - image_hwc.min(axis=2)
    return bool(np.mean(colour <= GREY_STEPS) > GREY_SHARE)
