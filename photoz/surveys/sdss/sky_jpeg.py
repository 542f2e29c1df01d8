"""Is a JPEG of SkyServer's ImgCutout a whole, colour picture of sky of the right size?"""

import numpy as np
from numpy.typing import NDArray

from photoz.images.picture import NoCutout, decode_jpeg, jpeg_shape

# Off the footprint, or when its database fails, SkyServer answers with a message, white on black. Of 1,499 of its
# cutouts of galaxies none has more than 38 % of its pixels in one tone (averaged over 8x8 px: 51 %), a message in a
# corner has 80 % and more; none has more than 1 % of sharp edges, a message over all the picture has 7 to 15 %.
BLANK_SHARE = 0.75
EDGE_SHARE, EDGE_STEPS = 0.03, 100
GREY_SHARE, GREY_STEPS = 0.85, 16


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
