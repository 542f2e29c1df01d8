"""A split's images: decoded once, in memory or in a file that all processes of the machine share, or each time anew."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
import pyarrow as pa

from photoz.artifacts.cache import Cache
from photoz.data.decode import Indices, Stored, as_bchw, stored_shape
from photoz.data.layout import ImageFormat
from photoz.data.locations import Locations, MemberReader
from photoz.data.memory import available_bytes
from photoz.data.workers import Workers, usual_workers
from photoz.runtime import world

MEMORY_SHARE = 0.5  # of the memory still free; the rest is for the network, the optimizer and the page cache
_DIGEST_BYTES = 32

Place = Literal["memory", "disk", "never"]
Fill = Callable[[Stored], None]


class Images(Protocol):
    """Images of a split, by number, and their rows in the same order."""

    table: pa.Table
    image: ImageFormat

    def __len__(self) -> int: ...

    def take_bchw(self, indices: Indices) -> Stored:
        """A copy of the images at `indices`, (b, c, h, w); JPEGs are channels-last in memory."""

    def batches(self, parts: Iterable[Indices]) -> Iterator[Stored]:
        """take_bchw of each part, in order, prefetched where that takes work; each stays valid for two iterations."""


@dataclass
class DecodedImages:
    """Images in an array, as they come out of the decoder (see decode.stored_shape)."""

    stored: Stored
    table: pa.Table
    image: ImageFormat

    def __len__(self) -> int:
        return len(self.stored)

    def take_bchw(self, indices: Indices) -> Stored:
        """See Images."""
        return as_bchw(self.stored[indices], self.image)

    def batches(self, parts: Iterable[Indices]) -> Iterator[Stored]:
        """See Images."""
        return map(self.take_bchw, parts)


class StreamedImages:
    """Images that are decoded anew for each batch, from shards that `held` keeps on this machine."""

    def __init__(
        self, locations: Locations, table: pa.Table, image: ImageFormat, held: ExitStack, workers: int | None = None
    ) -> None:
        self.table, self.image = table, image
        self._locations, self._held = locations, held
        self._count = workers or usual_workers()
        self._workers: Workers | None = None

    def __len__(self) -> int:
        return len(self._locations)

    def take_bchw(self, indices: Indices) -> Stored:
        """See Images. In this process."""
        out = np.empty((len(indices), *stored_shape(self.image)), self.image.dtype)
        with MemberReader(self.image) as reader:
            reader.read_into(self._locations[indices], out)
        return as_bchw(out, self.image)

    def batches(self, parts: Iterable[Indices]) -> Iterator[Stored]:
        """See Images. By worker processes; one iteration at a time."""
        stream = iter(parts)
        first = next(stream, None)
        if first is None:
            return
        workers = self._workers_for(len(first) + 1)  # sizes differ by one at most within an epoch
        for stored in workers.read(self._locations[part] for part in chain([first], stream)):
            yield as_bchw(stored, self.image)

    def _workers_for(self, images: int) -> Workers:
        if self._workers is None or self._workers.slot_images < images:
            self.close()
            self._workers = Workers(self.image, self._count, images, keep_open=True)
        return self._workers

    def close(self) -> None:
        """End the workers."""
        if self._workers:
            self._workers.close()
        self._workers = None


def choose_place(wanted: int) -> Place:
    """Where `wanted` bytes of decoded images go: memory, disk, or nowhere.

    In memory they take at most half of what is free, and no other rank of this machine may need a copy of them.
    """
    if world().size == 1 and wanted <= MEMORY_SHARE * available_bytes():
        return "memory"
    return "disk" if Cache().has_room(wanted) else "never"


def decoded(place: Place, fill: Fill, shape: Sequence[int], dtype: str, identity: str) -> Stored:
    """An array of `shape`, filled by `fill` or found filled.

    In this process's memory, or a read-only map of a file in the cache folder named after `identity`, filled once by
    the first process that needs it.
    """
    if place == "memory":
        images = np.empty(shape, dtype)
        fill(images)
        return images
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
