"""Reading shards: tables from the index files alone, images one shard or one split at a time."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from photoz import progress
from photoz.artifacts import Artifact
from photoz.data.decode import Stored, as_bchw, stored_shape
from photoz.data.image_set import DecodedImages, Images, Place, StreamedImages, choose_place, decoded
from photoz.data.layout import (
    ALL,
    COMPUTED_WITH,
    MEMBER_COLUMNS,
    ImageFormat,
    check_columns,
    index_name,
    split_of,
    tar_name,
)
from photoz.data.locations import MOST_THREADS, Locations, allow_open_files, read_in_threads
from photoz.data.workers import Workers, usual_workers
from photoz.errors import BadFormat, BadInput
from photoz.ordered import in_order
from photoz.runtime import check_stop

log = logging.getLogger("photoz.data")

TAR_BLOCK = 512
PROCESSES_FROM = 50_000  # images
_SLOT_IMAGES, _SLOT_BYTES = 64, 2**23  # of a worker that decodes whole shards
MOST_SHARD_BYTES = 2**35  # of one shard's decoded images
_PLACES = {
    "memory": "decoded once into {:.2g} GB of memory",
    "disk": "decoded once into a cache file of {:.2g} GB",
    "never": "read from the shards each time, for {:.2g} GB of decoded images are too many to keep",
}
_INDEX_READERS = 8  # small files from an object store: latency, not work


@dataclass(frozen=True)
class ShardBatch:
    """All samples of one shard: `images_bchw` (b, c, h, w) and their rows of the index, in the same order."""

    name: str
    images_bchw: NDArray[np.generic]
    table: pa.Table


class ShardSet:
    """A shards artifact as tables and images. The split "all" stands for every shard."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.image = ImageFormat.from_summary(artifact.summary.get("image"))
        self._shards = [name.removesuffix(".tar") for name in artifact.names("*.tar")]
        self._held = ExitStack()
        self.splits: tuple[str, ...] = tuple(sorted({split_of(name) for name in self._shards}))

    def shard_names(self, split: str = ALL) -> list[str]:
        """Shards of a split, such as `train-000000`, sorted. Raises BadInput if there are none."""
        names = [name for name in self._shards if split in (ALL, split_of(name))]
        if not names:
            raise BadInput(f"{self.artifact.ref} has no split {split!r}; it has {', '.join(self.splits)}")
        return names

    def samples(self, shard: str) -> int:
        """Number of samples in a shard, from the manifest alone."""
        rows = self.artifact.entry(index_name(shard)).rows
        if rows is None:
            raise BadFormat(f"{self.artifact.ref}: {index_name(shard)} has no row count in the manifest")
        # Memory is taken for as many images as this says: a tar can hold no more than one in three of its blocks.
        tar_bytes = self.artifact.entry(tar_name(shard)).bytes
        if rows > tar_bytes // (3 * TAR_BLOCK) or rows * self.image.image_bytes > MOST_SHARD_BYTES:
            raise BadFormat(
                f"{self.artifact.ref}: {rows} images of {self.image.image_bytes} bytes can't come from "
                f"{tar_name(shard)} of {tar_bytes}; make the shards again, in smaller ones"
            )
        return rows

    def count(self, split: str = ALL) -> int:
        """Number of samples in a split, from the manifest alone."""
        return sum(map(self.samples, self.shard_names(split)))

    def table(self, split: str = ALL, columns: Sequence[str] | None = None) -> pa.Table:
        """Index rows of a split in shard order (all catalogue columns, or `columns`); tars are not touched."""
        names = self.shard_names(split)
        tables = in_order(lambda name: self.rows(name, columns), names, min(_INDEX_READERS, len(names)))
        return pa.concat_tables(list(tables)).combine_chunks()

    @cached_property
    def computed_with(self) -> list[str]:
        """The columns that training and inference need, as far as there are such; a table may have hundreds more."""
        with self.artifact.parquet(index_name(self._shards[0])) as file:
            return [name for name in COMPUTED_WITH if name in file.schema_arrow.names]

    def rows(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Index rows of one shard: all catalogue columns, or `columns`."""
        table = self.artifact.table(index_name(shard), columns)
        check_columns(table, f"{self.artifact.ref}: {index_name(shard)}")
        return table if columns else table.drop_columns(list(MEMBER_COLUMNS))

    def read_shard(self, shard: str) -> ShardBatch:
        """Decode one shard. Raises BadFormat if the tar does not hold what its index says."""
        return ShardBatch(shard, self.images(shard), self.rows(shard))

    def images(self, shard: str, workers: Workers | None = None) -> NDArray[np.generic]:
        """One shard's images, (b, c, h, w), in index order; see read_shard."""
        out = self._empty(self.samples(shard))
        self.read_images(shard, out, workers)
        return as_bchw(out, self.image)

    def read_images(self, shard: str, out: Stored, workers: Workers | None = None) -> None:
        """Decode one shard's images into `out`, (b, *stored_shape), in index order: by `workers`, else in threads."""
        with self.artifact.local(tar_name(shard)) as path:
            where = self._locations(shard, path, len(out))
            if workers:
                workers.read_into(where, out)
            else:
                read_in_threads(where, self.image, out)

    def workers(self, images: int) -> AbstractContextManager[Workers | None]:
        """Processes for read_images, where they decode that many images sooner than threads; else None.

        They take as long to start as threads to decode some 20,000 images.
        """
        if images < PROCESSES_FROM or usual_workers() <= MOST_THREADS:
            return nullcontext()
        slot_images = max(1, min(_SLOT_IMAGES, _SLOT_BYTES // self.image.image_bytes))
        return closing(Workers(self.image, usual_workers(), slot_images))

    def load(self, split: str, place: Place | Literal["auto"] = "auto") -> Images:
        """A split's images, decoded once into memory or a file of the cache, or never; "auto" goes by their size."""
        shape = (self.count(split), *stored_shape(self.image))
        size = math.prod(shape) * np.dtype(self.image.dtype).itemsize
        if place == "auto":
            place = choose_place(size)
        log.info("%s: %d images, %s", split, shape[0], _PLACES[place].format(size / 1e9))
        table = self.table(split, self.computed_with)
        if place == "never":
            return StreamedImages(self._held_locations(split), table, self.image, self._held)
        identity = f"{self.artifact.payload_sha256[:32]}-{split}"
        stored = decoded(place, lambda out: self._decode_into(split, out), shape, self.image.dtype, identity)
        return DecodedImages(stored, table, self.image)

    def decode(self, split: str, out: Stored | None = None) -> Iterator[tuple[slice, Stored]]:
        """Decode a split shard by shard: the shard's place in the split and its images, (b, *stored_shape).

        They are a part of `out` where that is given. Raises BadFormat for a broken image, Preempted.
        """
        total = self.count(split)
        with progress.stage(f"decode {split}", total=total, unit="images") as bar, self.workers(total) as workers:
            start = 0
            for name in self.shard_names(split):
                check_stop()
                count = self.samples(name)
                place = slice(start, start + count)
                images = self._empty(count) if out is None else out[place]
                self.read_images(name, images, workers)
                yield place, images
                bar.advance(count)
                start += count

    def _empty(self, images: int) -> Stored:
        return np.empty((images, *stored_shape(self.image)), self.image.dtype)

    def _decode_into(self, split: str, out: Stored) -> None:
        for _ in self.decode(split, out):
            pass

    def _held_locations(self, split: str) -> Locations:
        """Where a split's images lie, its tars held on this machine for as long as this shard set is there."""
        names = self.shard_names(split)
        allow_open_files(len(names))  # a file of the cache is held by an open one
        found = []
        with progress.stage(f"fetch {split}", total=len(names), unit="shards") as bar:
            for name in names:
                check_stop()
                path = self._held.enter_context(self.artifact.local(tar_name(name)))
                found.append(self._locations(name, path, self.samples(name)))
                bar.advance(1)
        return Locations.joined(found)

    def _locations(self, shard: str, tar: Path, count: int) -> Locations:
        index = self.artifact.table(index_name(shard), ["key", "offset", "length"])
        if len(index) != count:
            raise BadFormat(f"{self.artifact.ref}: {index_name(shard)} has {len(index)} rows, not {count}")
        return Locations.of_shard(str(tar), f"{self.artifact.ref}: {shard}", index, tar.stat().st_size)


def open_shards(artifact: Artifact) -> ShardSet:
    """Read a shards artifact. Raises BadInput for another kind, BadFormat if its images can't be understood."""
    if artifact.ref.kind != "shards":
        raise BadInput(f"{artifact.ref}: expected an artifact of kind shards")
    return ShardSet(artifact)
