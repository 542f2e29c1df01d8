"""Reading shards: tables from the index files alone, images one shard or one split at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from photoz import progress
from photoz.artifacts import Artifact
from photoz.data.decode import Members, as_bchw, decode_members, stored_shape
from photoz.data.image_set import ImageSet, Stored, place_images
from photoz.data.layout import ALL, MEMBER_COLUMNS, ImageFormat, index_name, split_of, tar_name
from photoz.errors import BadFormat, BadInput
from photoz.ordered import in_order
from photoz.runtime import check_stop

TAR_BLOCK = 512
MOST_SHARD_BYTES = 2**35  # of one shard's decoded images
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

    def table(self, split: str = ALL, columns: Sequence[str] | None = None) -> pa.Table:
        """Index rows of a split in shard order (all catalogue columns, or `columns`); tars are not touched."""
        names = self.shard_names(split)
        tables = in_order(lambda name: self._index(name, columns), names, min(_INDEX_READERS, len(names)))
        return pa.concat_tables(list(tables)).combine_chunks()

    def read_shard(self, shard: str) -> ShardBatch:
        """Decode one shard. Raises BadFormat if the tar does not hold what its index says."""
        out = np.empty((self.samples(shard), *stored_shape(self.image)), self.image.dtype)
        self.read_images(shard, out)
        return ShardBatch(shard, as_bchw(out, self.image), self._index(shard))

    def read_images(self, shard: str, out: NDArray[np.generic]) -> None:
        """Decode one shard's images into `out`, (b, *stored_shape), in index order."""
        index = self.artifact.table(index_name(shard), ["key", "offset", "length"])
        if len(index) != len(out):
            raise BadFormat(f"{self.artifact.ref}: {index_name(shard)} has {len(index)} rows, not {len(out)}")
        with self.artifact.local(tar_name(shard)) as path:
            tar = path.read_bytes()
        decode_members(tar, Members.of(f"{self.artifact.ref}: {shard}", index, len(tar)), self.image, out)

    def load(self, split: str) -> ImageSet:
        """Decode a whole split once: into memory, or a cache file where it is too large (see place_images)."""
        names = self.shard_names(split)
        counts = [self.samples(name) for name in names]

        def fill(out: Stored) -> None:
            with progress.stage(f"decode {split}", total=sum(counts), unit="images") as bar:
                start = 0
                for name, count in zip(names, counts, strict=True):
                    check_stop()
                    self.read_images(name, out[start : start + count])
                    start += count
                    bar.advance(count)

        shape = (sum(counts), *stored_shape(self.image))
        identity = f"{self.artifact.payload_sha256[:32]}-{split}"
        return ImageSet(place_images(fill, shape, self.image.dtype, identity), self.table(split), self.image)

    def _index(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        table = self.artifact.table(index_name(shard), columns)
        return table if columns else table.drop_columns(list(MEMBER_COLUMNS))


def open_shards(artifact: Artifact) -> ShardSet:
    """Read a shards artifact. Raises BadInput for another kind, BadFormat if its images can't be understood."""
    if artifact.ref.kind != "shards":
        raise BadInput(f"{artifact.ref}: expected an artifact of kind shards")
    return ShardSet(artifact)
