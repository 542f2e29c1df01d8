"""Is a JPEG a whole, colour picture of sky of the right size?"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

JPEG_START = b"\xff\xd8\xff"
MAX_PIXELS = 2**26  # 8192 x 8192: more is a decompression bomb, not a galaxy
# Real sky is noisy: of 1,500 SDSS cutouts none has more than 85 % of its pixels within 2 steps of one value,
# even magnified until noise blurs. Off the footprint it is all of them, bar a line of text.
BLANK_SHARE = 0.95
BLANK_STEPS = 2
_LOOKED_AT = 64  # rows and columns at most


class NoCutout(Exception):
    """A galaxy has no usable image: `reason` is a word for counting, `detail` says it in full."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def check_jpeg(data: bytes, size_px: int) -> None:
    """Raise NoCutout unless `data` is a whole `size_px` squared colour JPEG with more than one tone in it."""
    height, width, channels = jpeg_shape(data)
    if (height, width) != (size_px, size_px):
        raise NoCutout("wrong_size", f"{width}x{height} px instead of {size_px}x{size_px}")
    if channels != 3:
        raise NoCutout("not_colour", f"{channels} channels instead of 3")
    decode_jpeg(data, channels)


def jpeg_shape(data: bytes) -> tuple[int, int, int]:
    """(height, width, channels) from a JPEG's header. Raises NoCutout if it is no JPEG, or far too large."""
    if not data.startswith(JPEG_START):
        start = " ".join(data[:60].decode("latin-1").split())
        raise NoCutout("not_an_image", f"{len(data)} bytes that start with {start!r}")
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError) as error:  # KeyError: a chroma subsampling that simplejpeg has no name for
        raise NoCutout("corrupt", f"JPEG header: {error}") from None
    channels = {"Gray": 1, "YCbCr": 3, "RGB": 3}.get(colours)
    if channels is None:
        raise NoCutout("not_colour", f"colour space {colours}, expected RGB or grey")
    if height * width > MAX_PIXELS:
        raise NoCutout("too_large", f"{width}x{height} px, at most {MAX_PIXELS} in all")
    return height, width, channels


def decode_jpeg(data: bytes, channels: int) -> NDArray[np.uint8]:
    """(h, w, c) of a JPEG. Raises NoCutout if it is truncated, corrupt or of a single tone."""
    try:
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY")
    except ValueError as error:
        raise NoCutout("corrupt", str(error)) from None
    if is_blank(image):
        raise NoCutout("blank", "the picture is one flat tone: no sky, off the survey's footprint")
    return image


def is_blank(image_hwc: NDArray[np.uint8]) -> bool:
    """Whether an 8-bit picture is (nearly) one flat tone, judged by its middle channel."""
    step_y, step_x = (max(1, n // _LOOKED_AT) for n in image_hwc.shape[:2])
    tones = np.bincount(image_hwc[::step_y, ::step_x, image_hwc.shape[2] // 2].ravel(), minlength=256)
    mode = int(tones.argmax())
    near = tones[max(0, mode - BLANK_STEPS) : mode + BLANK_STEPS + 1].sum()
    return bool(near >= BLANK_SHARE * tones.sum())
