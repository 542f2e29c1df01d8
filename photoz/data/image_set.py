"""A whole split, decoded once: in memory where it fits, else in a file that all processes of the machine share."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from photoz.artifacts.cache import Cache
from photoz.data.decode import as_bchw
from photoz.data.layout import ImageFormat
from photoz.data.memory import available_bytes
from photoz.runtime import cache_folder, world

log = logging.getLogger("photoz.data")

MEMORY_SHARE = 0.5  # of the memory still free; the rest is for the network, the optimizer and the page cache
_DIGEST_BYTES = 32

Stored = NDArray[np.generic]
Fill = Callable[[Stored], None]


@dataclass(frozen=True)
class ImageSet:
    """Decoded images in their order in memory (see decode.stored_shape) and their rows, in the same order."""

    stored: Stored
    table: pa.Table
    image: ImageFormat

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def images_bchw(self) -> Stored:
        """All images as a (b, c, h, w) view, channels-last in memory if they were JPEGs."""
        return as_bchw(self.stored, self.image)

    def take_bchw(self, indices: NDArray[np.integer[Any]]) -> Stored:
        """A copy of the images at `indices`, (b, c, h, w), in the same memory order."""
        return as_bchw(self.stored[indices], self.image)


def place_images(fill: Fill, shape: Sequence[int], dtype: str, identity: str) -> Stored:
    """An array of `shape`, filled by `fill` or found filled.

    In this process's memory if it takes at most half of what is free and no other rank needs a copy; else a
    read-only map of a file in the cache folder named after `identity`, filled once by whoever comes first.
    """
    wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if world().size == 1 and wanted <= MEMORY_SHARE * available_bytes():
        images = np.empty(shape, dtype)
        fill(images)
        return images
    log.info("%.1f GB of decoded images go to a file in %s", wanted / 1e9, cache_folder())
    return _cached(fill, shape, dtype, identity)


def _cached(fill: Fill, shape: Sequence[int], dtype: str, identity: str) -> Stored:
    """The images in a file of the cache that ends in its own digest, mapped; the map keeps it from eviction."""
    wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize

    def write(file: BinaryIO) -> None:
        images = np.memmap(file, dtype, "r+", shape=tuple(shape))
        fill(images)
        images.flush()
        file.seek(wanted)
        file.write(_digest(images))

    def check(path: Path) -> str | None:
        with path.open("rb") as file:
            file.seek(wanted)
            said = file.read()
        if len(said) != _DIGEST_BYTES or said != _digest(np.memmap(path, dtype, "r", shape=tuple(shape))):
            return "the decoded images are not those that were written"
        return None

    with Cache().holding(f"decoded/{identity}.raw", wanted + _DIGEST_BYTES, write, check) as file:
        return np.memmap(file, dtype, "r", shape=tuple(shape))


def _digest(images: Stored) -> bytes:
    found = hashlib.sha256(f"{images.shape} of {images.dtype}".encode())
    found.update(images.data)
    return found.digest()
