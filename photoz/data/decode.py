"""One stored image -> an array. Threads may call it at once: libjpeg-turbo releases the GIL."""

from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from photoz.data.layout import ImageFormat
from photoz.jpeg import check_scans

Indices = NDArray[np.integer[Any]]
Stored = NDArray[np.generic]  # decoded images, (b, *stored_shape)

COLOURS = {1: "GRAY", 3: "RGB"}


def stored_shape(image: ImageFormat) -> tuple[int, int, int]:
    """Axis order in memory: as decoded, so (h, w, c) for JPEG and (c, h, w) for arrays."""
    return (image.height, image.width, image.channels) if image.format == "jpg" else image.shape


def as_bchw(stored: NDArray[np.generic], image: ImageFormat) -> NDArray[np.generic]:
    """View decoded images as (b, c, h, w) whatever their order in memory; JPEGs are then channels-last."""
    return stored.transpose(0, 3, 1, 2) if image.format == "jpg" else stored


def decode_into(member: bytes, image: ImageFormat, out: NDArray[np.generic]) -> None:
    """Decode one image into `out`, as `stored_shape`. Raises ValueError where it is another one, or broken."""
    if image.format == "jpg":
        check_scans(member)
        # Never beyond `out`: simplejpeg refuses a picture of more bytes before it decodes it.
        shape = simplejpeg.decode_jpeg(member, COLOURS[image.channels], buffer=out).shape
        if shape != out.shape:
            raise ValueError(f"image of {shape[1]}x{shape[0]} px, expected {out.shape[1]}x{out.shape[0]}")
        return
    header = image.npy_header()
    if not member.startswith(header) or len(member) != len(header) + image.image_bytes:
        raise ValueError(f"array does not match summary.image ({image.shape} of {image.dtype})")
    out[...] = np.frombuffer(member, out.dtype, offset=len(header)).reshape(out.shape)
