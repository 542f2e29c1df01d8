"""Where each image of a split lies: the index files of all its shards as three arrays."""

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz.data.decode import Members, decode_into
from photoz.data.layout import ImageFormat
from photoz.errors import BadFormat


@dataclass(frozen=True)
class Locations:
    """Sample i of a split is `length_s[i]` bytes from `offset_s[i]` on of the tar `paths[shard_s[i]]`."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]  # of the shards, as errors name them
    shard_s: NDArray[np.int32]
    offset_s: NDArray[np.int64]
    length_s: NDArray[np.int64]
    keys: Sequence[str] = ()  # of the samples, where errors are to name them

    def __len__(self) -> int:
        return len(self.shard_s)

    def __getitem__(self, part: slice) -> "Locations":
        """Those of some samples."""
        return Locations(
            self.paths, self.names, self.shard_s[part], self.offset_s[part], self.length_s[part], self.keys[part]
        )

    @classmethod
    def of(cls, paths: Sequence[Path], members: Sequence[Members]) -> "Locations":
        """From each shard's tar and its members, in the split's order."""
        counts = [len(found.keys) for found in members]
        return cls(
            tuple(paths),
            tuple(found.shard for found in members),
            np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            np.concatenate([np.asarray(found.offsets, np.int64) for found in members]),
            np.concatenate([np.asarray(found.lengths, np.int64) for found in members]),
        )


@dataclass
class MemberReader:
    """Reads and decodes images one by one, wherever they lie. One process's own: it keeps the tars open."""

    locations: Locations
    image: ImageFormat
    _files: dict[int, int] = field(default_factory=dict)  # shard -> descriptor

    def read_into(self, indices: NDArray[np.integer[Any]], out: NDArray[np.generic]) -> None:
        """Decode the images at `indices` into `out`, (b, *stored_shape). Raises BadFormat naming a broken one."""
        where, image = self.locations, self.image
        chosen = zip(
            where.shard_s[indices].tolist(),
            where.offset_s[indices].tolist(),
            where.length_s[indices].tolist(),
            strict=True,
        )
        for place, (shard, offset, length) in enumerate(chosen):
            data = os.pread(self._file(shard), length, offset)
            try:
                if len(data) != length:
                    raise ValueError(f"the tar ends after {len(data)} of its {length} bytes")
                decode_into(data, image, out[place])
            except ValueError as error:
                named = f"{where.keys[indices[place]]}.{image.format}" if where.keys else f"the image at byte {offset}"
                raise BadFormat(f"{where.names[shard]}: {named}: {error}; verify it") from None

    def close(self) -> None:
        """Close the tars."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _file(self, shard: int) -> int:
        found = self._files.get(shard)
        if found is None:
            allow_open_files(len(self.locations.paths))
            path = self.locations.paths[shard]
            try:
                found = self._files[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise BadFormat(f"{path}: {error.strerror}") from None
        return found


def allow_open_files(count: int) -> None:
    """Let this process have `count` files open beside what it has, as far as the machine lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 512
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
