"""Members of a shard -> one array, decoded in threads (libjpeg-turbo works outside the interpreter's lock)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from photoz.data.layout import ImageFormat
from photoz.errors import BadFormat
from photoz.runtime import usable_cores

COLOURS = {1: "GRAY", 3: "RGB"}
_IMAGES_A_TASK = 64


@dataclass(frozen=True)
class Members:
    """Where the images of one shard lie in its tar."""

    shard: str
    keys: Sequence[str]
    offsets: Sequence[int]
    lengths: Sequence[int]


def stored_shape(image: ImageFormat) -> tuple[int, int, int]:
    """Axis order in memory: as decoded, so (h, w, c) for JPEG and (c, h, w) for arrays."""
    return (image.height, image.width, image.channels) if image.format == "jpg" else image.shape


def as_bchw(stored: NDArray[np.generic], image: ImageFormat) -> NDArray[np.generic]:
    """View decoded images as (b, c, h, w) whatever their order in memory; JPEGs are then channels-last."""
    return stored.transpose(0, 3, 1, 2) if image.format == "jpg" else stored


def decode_members(tar: bytes, members: Members, image: ImageFormat, out: NDArray[np.generic]) -> None:
    """Decode a shard's images into `out`, (b, *stored_shape). Raises BadFormat naming a broken member."""
    view = memoryview(tar)
    starts = range(0, len(members.keys), _IMAGES_A_TASK)

    def decode_some(start: int) -> None:
        for i in range(start, min(start + _IMAGES_A_TASK, len(members.keys))):
            member = view[members.offsets[i] : members.offsets[i] + members.lengths[i]]
            try:
                _decode_into(member, image, out[i])
            except ValueError as error:
                raise BadFormat(f"{members.shard}: {members.keys[i]}.{image.format}: {error}; verify it") from None

    with ThreadPoolExecutor(max(1, min(usable_cores(), len(starts)))) as pool:
        for _ in pool.map(decode_some, starts):
            pass


def _decode_into(member: memoryview, image: ImageFormat, out: NDArray[np.generic]) -> None:
    if image.format == "jpg":
        decoded = simplejpeg.decode_jpeg(member, COLOURS[image.channels], buffer=out)
        if decoded.shape != out.shape:
            raise ValueError(f"image of {decoded.shape}, expected {out.shape} (rows, columns, channels)")
        return
    header = image.npy_header()
    if member[: len(header)] != header or len(member) != len(header) + image.image_bytes:
        raise ValueError(f"array does not match summary.image ({image.shape} of {image.dtype})")
    out[...] = np.frombuffer(member, out.dtype, offset=len(header)).reshape(out.shape)
