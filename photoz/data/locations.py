"""Where images lie in the tars of shards, and the one reader that decodes them from there."""

import os
import resource
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from photoz.data.decode import Indices, Stored, decode_into
from photoz.data.layout import ImageFormat
from photoz.errors import BadFormat
from photoz.runtime import usable_cores

_IMAGES_A_TASK = 64
# Threads that decode, over all shards: more only wait for the GIL (docs/results.md).
MOST_THREADS = 8
_AT_ONCE = BoundedSemaphore(MOST_THREADS)


@dataclass(frozen=True)
class Locations:
    """Image i is `length_s[i]` bytes from `offset_s[i]` on of the tar `paths[shard_s[i]]`."""

    paths: tuple[str, ...]
    names: tuple[str, ...]  # of the shards, as errors name them
    shard_s: NDArray[np.integer]
    offset_s: NDArray[np.int64]
    length_s: NDArray[np.int64]
    keys: NDArray[np.object_] | None = None  # of the images, where errors are to name them

    def __len__(self) -> int:
        return len(self.shard_s)

    def __getitem__(self, chosen: Indices | slice) -> "Locations":
        """Those of some images, with no other shards' paths and names."""
        numbers, shard_s = np.unique(self.shard_s[chosen], return_inverse=True)
        shards = numbers.tolist()
        return Locations(
            tuple([self.paths[shard] for shard in shards]),
            tuple([self.names[shard] for shard in shards]),
            shard_s,
            self.offset_s[chosen],
            self.length_s[chosen],
            None if self.keys is None else self.keys[chosen],
        )

    @classmethod
    def of_shard(cls, path: str, name: str, index: pa.Table, tar_bytes: int) -> "Locations":
        """From a shard's index. Raises BadFormat unless every member has a key of its own and lies inside the tar."""
        for column in ("key", "offset", "length"):
            values = index[column]
            texts = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
            if values.null_count or not (texts if column == "key" else pa.types.is_integer(values.type)):
                raise BadFormat(
                    f"{name}: {column} in its index is {values.type} with {values.null_count} nulls; verify it"
                )
        keys, offsets, lengths = (index[column].to_pylist() for column in ("key", "offset", "length"))
        if len(set(keys)) != len(keys):
            raise BadFormat(f"{name}: its index has a key twice; verify it")
        for key, offset, length in zip(keys, offsets, lengths, strict=True):
            if offset < 0 or length < 0 or offset + length > tar_bytes:
                raise BadFormat(
                    f"{name}: {key}: {length} bytes from {offset} are not inside its tar of {tar_bytes}; verify it"
                )
        offset_s, length_s = np.array(offsets, np.int64), np.array(lengths, np.int64)
        return cls((path,), (name,), np.zeros(len(keys), np.int32), offset_s, length_s, np.array(keys, object))

    @classmethod
    def joined(cls, shards: Sequence["Locations"]) -> "Locations":
        """Those of several shards, in their order. Keys are left out: a split may have 100 million."""
        return cls(
            tuple(path for shard in shards for path in shard.paths),
            tuple(name for shard in shards for name in shard.names),
            np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard) for shard in shards]),
            np.concatenate([shard.offset_s for shard in shards]),
            np.concatenate([shard.length_s for shard in shards]),
        )


class MemberReader:
    """Reads and decodes images one by one, wherever they lie. For one thread; tars stay open until `close`."""

    def __init__(self, image: ImageFormat) -> None:
        self._image = image
        self._files: dict[str, int] = {}  # descriptor by path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_into(self, where: Locations, out: Stored) -> None:
        """Decode the images at `where` into `out`, (b, *stored_shape). Raises BadFormat naming a broken one."""
        members = zip(where.shard_s.tolist(), where.offset_s.tolist(), where.length_s.tolist(), strict=True)
        for i, (shard, offset, length) in enumerate(members):
            data = os.pread(self._file(where.paths[shard]), length, offset)
            try:
                if len(data) != length:
                    raise ValueError(f"the tar ends after {len(data)} of its {length} bytes")
                decode_into(data, self._image, out[i])
            except ValueError as error:
                named = f"the image at byte {offset}" if where.keys is None else f"{where.keys[i]}.{self._image.format}"
                raise BadFormat(f"{where.names[shard]}: {named}: {error}; verify it") from None

    def close(self) -> None:
        """Close the tars."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _file(self, path: str) -> int:
        found = self._files.get(path)
        if found is None:
            allow_open_files(len(self._files) + 1)
            try:
                found = self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise BadFormat(f"{path}: {error.strerror}") from None
        return found


def read_in_threads(where: Locations, image: ImageFormat, out: Stored) -> None:
    """Decode the images at `where` into `out` on several cores. Raises BadFormat naming a broken one."""
    parts = [slice(start, start + _IMAGES_A_TASK) for start in range(0, len(where), _IMAGES_A_TASK)]

    def read(part: slice) -> None:
        with _AT_ONCE, MemberReader(image) as reader:
            reader.read_into(where[part], out[part])

    with ThreadPoolExecutor(max(1, min(usable_cores(), len(parts)))) as pool:
        for _ in pool.map(read, parts):
            pass


def allow_open_files(count: int) -> None:
    """Let this process have `count` files open beside what it has, as far as the machine lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 512
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
