"""A split's images: decoded once, in memory or in a file that all processes of the machine share, or each time anew."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
import pyarrow as pa

from photoz.artifacts.cache import Cache
from photoz.data.decode import Indices, Stored, as_bchw, stored_shape
from photoz.data.layout import ImageFormat
from photoz.data.locations import Locations, MemberReader
from photoz.data.memory import available_bytes
from photoz.data.ring import Ring
from photoz.data.workers import usual_workers
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
        """take_bchw of each part, in order, made ahead where that takes work; each is good until the next but one."""


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
    """Images that are decoded each time they are asked for, from shards that `held` keeps on this machine."""

    def __init__(
        self, locations: Locations, table: pa.Table, image: ImageFormat, held: ExitStack, workers: int | None = None
    ) -> None:
        self.table, self.image, self._held = table, image, held
        self._reader = MemberReader(locations, image)
        self._workers = usual_workers() if workers is None else workers
        self._ring: tuple[Ring, int] | None = None  # and how many images fit into its slots

    def __len__(self) -> int:
        return len(self._reader.locations)

    def take_bchw(self, indices: Indices) -> Stored:
        """See Images. In this process."""
        out = np.empty((len(indices), *stored_shape(self.image)), self.image.dtype)
        self._reader.read_into(indices, out)
        return as_bchw(out, self.image)

    def batches(self, parts: Iterable[Indices]) -> Iterator[Stored]:
        """See Images. By worker processes; one iteration at a time."""
        stream = iter(parts)
        first = next(stream, None)
        if first is None:
            return
        # Sizes differ by one at most within an epoch.
        if not self._workers:
            yield from self._read_here(chain([first], stream), len(first) + 1)
            return
        for stored in self._ring_for(len(first) + 1).batches(chain([first], stream)):
            yield as_bchw(stored, self.image)

    def _read_here(self, parts: Iterable[Indices], most: int) -> Iterator[Stored]:
        # Memory that was used before is there already: the system would have to clear new pages.
        for part, out in zip(
            parts, cycle(np.empty((2, most, *stored_shape(self.image)), self.image.dtype)), strict=False
        ):
            self._reader.read_into(part, out[: len(part)])
            yield as_bchw(out[: len(part)], self.image)

    def _ring_for(self, images: int) -> Ring:
        if self._ring is None or self._ring[1] < images:
            self.close()
            self._ring = Ring(self._reader.locations, self.image, self._workers, images), images
        return self._ring[0]

    def close(self) -> None:
        """Let the workers go and close the tars."""
        if self._ring:
            self._ring[0].close()
        self._ring = None
        self._reader.close()


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
    whoever comes first.
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
