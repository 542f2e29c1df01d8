"""Arrays of any order and type -> stamps (c, h, w) of uint8, int16 or float32."""

import numpy as np
from numpy.typing import NDArray

from photoz.images.picture import NoCutout

Array = NDArray[np.generic]

# Below 1.2e-38 float32 keeps fewer and fewer digits: the noise of an image may be 10,000 times fainter than its peak.
_LEAST_PEAK, _MOST = 1e-34, float(np.finfo(np.float32).max)


class AmbiguousAxes(NoCutout):
    """The shape does not tell which axis holds the channels; only the user can."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        text = "x".join(map(str, shape))
        super().__init__("ambiguous_axes", f"shape {text} does not tell channels from pixels; say --axes chw or hwc")


def to_chw(array: Array, axes: str | None) -> Array:
    """View (h, w), (c, h, w) or (h, w, c) as (c, h, w); without `axes` the channel axis is the one shorter than both
    others. Raises AmbiguousAxes if that does not single out the first or the last axis."""
    if array.ndim > 3:
        array = array.reshape([n for n in array.shape if n > 1])
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3:
        raise NoCutout("wrong_shape", f"array of shape {array.shape}; expected (h, w), (c, h, w) or (h, w, c)")
    if axes is None:
        first, middle, last = array.shape
        leading, trailing = first < min(middle, last), last < min(first, middle)
        if leading == trailing:
            raise AmbiguousAxes(array.shape)
        axes = "chw" if leading else "hwc"
    return array if axes == "chw" else array.transpose(2, 0, 1)


def stamp_dtype(array: Array) -> str:
    """The type in which an array's values are kept: uint8, int16 or float32.

    Wider integers and float64 become float32 (24 bits); the pixels of one galaxy have far fewer.
    """
    if array.dtype == np.uint8:
        return "uint8"
    return "int16" if array.dtype.kind == "i" and array.dtype.itemsize <= 2 else "float32"


def centre_crop(image_chw: Array, size_px: int | None) -> Array:
    """The middle `size_px` squared; raises NoCutout if the image is smaller. An odd pixel stays at the far side."""
    height, width = image_chw.shape[1:]
    if size_px is None:
        return image_chw
    if min(height, width) < size_px:
        raise NoCutout("too_small", f"{width}x{height} px, --size asks for {size_px}; smaller files are not enlarged")
    top, left = (height - size_px) // 2, (width - size_px) // 2
    return image_chw[:, top : top + size_px, left : left + size_px]


def check_range(image: Array) -> None:
    """Raise NoCutout for numbers that float32 can't hold, or only with few digits."""
    if image.dtype.kind != "f" or not image.size:
        return
    peak = float(np.nanmax(np.abs(image), initial=0.0, where=np.isfinite(image)))
    if 0 < peak < _LEAST_PEAK or peak > _MOST:
        words = f"too {'small' if peak < 1 else 'large'} for float32"
        raise NoCutout("out_of_range", f"values of up to {peak:.3g} are {words}; multiply all images by a constant")


def check_values(image: Array) -> None:
    """Raise NoCutout for values that are not finite, or all the same."""
    if image.dtype.kind == "f":
        bad = image.size - int(np.count_nonzero(np.isfinite(image)))
        if bad:
            raise NoCutout("not_finite", f"{bad} of {image.size} values are NaN or infinite; fill or mask them first")
    # Two values tell nearly always, at a tenth of the cost of looking at all.
    if image.flat[0] == image.flat[image.size // 2] and image.min() == image.max():
        raise NoCutout("blank", f"every value is {image.flat[0]}")
