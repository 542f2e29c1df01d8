"""A whole split, decoded once: in memory where it fits, else in a file that all processes of the machine share."""

import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from photoz.data.decode import as_bchw
from photoz.data.layout import ImageFormat
from photoz.data.memory import available_bytes
from photoz.errors import TryAgain
from photoz.runtime import cache_folder, world

log = logging.getLogger("photoz.data")

MEMORY_SHARE = 0.5  # of the memory still free; the rest is for the network, the optimizer and the page cache

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
    folder = cache_folder() / "decoded"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{identity}.raw"
    with _only_one(path.with_suffix(".lock")):
        if not _is_whole(path, shape, dtype):
            _fill_file(path, fill, shape, dtype)
    return np.memmap(path, dtype, mode="r", shape=tuple(shape))


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold the lock file; the kernel frees it when the process ends, however it ends."""
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fill_file(path: Path, fill: Fill, shape: Sequence[int], dtype: str) -> None:
    wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    free = shutil.disk_usage(path.parent).free
    if wanted > free:
        raise TryAgain(
            f"cache {path.parent}: {wanted / 1e9:.1f} GB of decoded images, {free / 1e9:.1f} GB free; "
            "free some, or name a larger disk with PHOTOZ_CACHE"
        )
    arriving = path.with_suffix(".tmp")
    images = np.memmap(arriving, dtype, mode="w+", shape=tuple(shape))
    fill(images)
    images.flush()
    arriving.replace(path)
    record = {"shape": list(shape), "dtype": dtype, "sha256": _digest(path)}
    path.with_suffix(".json").write_text(json.dumps(record))


def _is_whole(path: Path, shape: Sequence[int], dtype: str) -> bool:
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        found = {"shape": list(shape), "dtype": dtype, "sha256": _digest(path)}
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(record == found)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
