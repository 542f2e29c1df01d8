"""Members of a shard -> one array, decoded in threads (libjpeg-turbo works outside the interpreter's lock)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

from photoz.data.layout import ImageFormat
from photoz.errors import BadFormat
from photoz.jpeg import check_scans
from photoz.runtime import usable_cores

Indices = NDArray[np.integer[Any]]
Stored = NDArray[np.generic]  # decoded images, (b, *stored_shape)

COLOURS = {1: "GRAY", 3: "RGB"}
_IMAGES_A_TASK = 64
# Threads that decode, over all shards: more only wait for the interpreter's lock (docs/results.md).
MOST_THREADS = 8
_AT_ONCE = BoundedSemaphore(MOST_THREADS)


@dataclass(frozen=True)
class Members:
    """Where the images of one shard lie in its tar."""

    shard: str
    keys: Sequence[str]
    offsets: Sequence[int]
    lengths: Sequence[int]

    @classmethod
    def of(cls, shard: str, index: pa.Table, tar_bytes: int) -> "Members":
        """From a shard's index. Raises BadFormat unless every member has a key of its own and lies inside the tar."""
        for name in ("key", "offset", "length"):
            column = index[name]
            texts = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            if column.null_count or not (texts if name == "key" else pa.types.is_integer(column.type)):
                raise BadFormat(
                    f"{shard}: {name} in its index is {column.type} with {column.null_count} nulls; verify it"
                )
        keys, offsets, lengths = (index[name].to_pylist() for name in ("key", "offset", "length"))
        if len(set(keys)) != len(keys):
            raise BadFormat(f"{shard}: its index has a key twice; verify it")
        for key, offset, length in zip(keys, offsets, lengths, strict=True):
            if offset < 0 or length < 0 or offset + length > tar_bytes:
                raise BadFormat(
                    f"{shard}: {key}: {length} bytes from {offset} are not inside its tar of {tar_bytes}; verify it"
                )
        return cls(shard, keys, offsets, lengths)


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
        with _AT_ONCE:
            for i in range(start, min(start + _IMAGES_A_TASK, len(members.keys))):
                member = bytes(view[members.offsets[i] : members.offsets[i] + members.lengths[i]])
                try:
                    decode_into(member, image, out[i])
                except ValueError as error:
                    raise BadFormat(f"{members.shard}: {members.keys[i]}.{image.format}: {error}; verify it") from None

    with ThreadPoolExecutor(max(1, min(usable_cores(), len(starts)))) as pool:
        for _ in pool.map(decode_some, starts):
            pass


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
