"""Which galaxies go to which shard, decided by the catalogue alone, so that slices and resumed runs agree."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from photoz.data.layout import ALL, shard_name
from photoz.errors import BadInput

MAX_KEY = 80  # leaves room in a tar's 100-byte name for the suffix
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_-]")
_SPLIT = re.compile(r"[a-z0-9][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class PlannedShard:
    """A shard's name and its galaxies: row numbers of the catalogue, in the order in which they are stored."""

    name: str
    rows: NDArray[np.int64]


def plan_shards(
    batches: Callable[[], Iterable[pa.Table]],
    samples_per_shard: int,
    tiles: Callable[[pa.Table], list[str]] | None = None,
) -> list[PlannedShard]:
    """Cut each split into shards of (nearly) equal size, at most `samples_per_shard`, each a random sample of it.

    `batches` starts a pass over the catalogue's `object_id`, `split` and what `tiles` reads. Order is by a hash of
    object_id, so it does not depend on the catalogue's. `tiles` names the file that each galaxy is cut from: all of a
    tile's galaxies go to one shard, which may then hold a tile's worth more; tiles go to shards by a hash of theirs.
    Raises BadInput for an id that comes twice, or a split that can't be part of a file name.
    """
    codes: dict[str, int] = {}
    # Numbers only: the ids of millions of galaxies would take gigabytes.
    hashes, splits = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int32)]
    tile_hashes = [np.empty(0, np.uint64)]
    for batch in batches():
        hashes.append(_hashes(batch["object_id"].to_pylist()))
        tile_hashes.append(_hashes(tiles(batch))[:, 0] if tiles else hashes[-1][:, 0])
        names = [split or ALL for split in batch["split"].to_pylist()]
        splits.append(np.array([codes.setdefault(name, len(codes)) for name in names], np.int32))
    order = _shuffled(np.concatenate(hashes), batches)
    split_of_row = np.concatenate(splits)[order]
    plan: list[PlannedShard] = []
    for split in sorted(codes):
        if not _SPLIT.fullmatch(split):
            raise BadInput(f"split {split!r}: expected up to 32 of a-z, 0-9 and '_', such as train, val, test")
        rows = order[split_of_row == codes[split]]
        parts = _by_tile(rows, np.concatenate(tile_hashes)[rows], -(-len(rows) // samples_per_shard))
        plan += [PlannedShard(shard_name(split, number), part) for number, part in enumerate(parts)]
    return plan


def _by_tile(rows: NDArray[np.int64], tile_hashes: NDArray[np.uint64], shards: int) -> list[NDArray[np.int64]]:
    """Rows of each shard, in the order in which they came; a tile is in the shard in which its first row falls."""
    sizes = [len(part) for part in np.array_split(rows, shards)]
    by_tile = np.argsort(tile_hashes, kind="stable")
    ordered = tile_hashes[by_tile]
    first_of_tile = np.searchsorted(ordered, ordered)
    shard = np.empty(len(rows), np.int64)
    shard[by_tile] = np.searchsorted(np.cumsum(sizes), first_of_tile, side="right")
    return [part for part in (rows[shard == number] for number in range(shards)) if len(part)]


def _hashes(object_ids: list[str]) -> NDArray[np.uint64]:
    """(row, 2) hashes of each id: the first decides the order, both together stand for the id."""
    encoded = [object_id.encode() for object_id in object_ids]
    digests = (_digest(one) + _digest(one, b"identity") for one in encoded)
    return np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2).astype(np.uint64)


def _digest(data: bytes, purpose: bytes = b"") -> bytes:
    return hashlib.blake2b(data, digest_size=8, person=purpose).digest()


def _shuffled(hashes: NDArray[np.uint64], batches: Callable[[], Iterable[pa.Table]]) -> NDArray[np.int64]:
    """Row numbers in the order of their hashes. Raises BadInput for an id that comes twice."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    same = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    if same.any():
        row = int(order[1:][same].min())
        object_id = next(islice((name for batch in batches() for name in batch["object_id"].to_pylist()), row, None))
        raise BadInput(f"object_id {object_id!r} comes twice in the catalogue; each galaxy needs an id of its own")
    return order


def shared_keys(batches: Iterable[pa.Table]) -> frozenset[int]:
    """Hashes of the keys that more than one `object_id` of a catalogue would have; see `member_keys`."""
    found = [np.empty(0, np.uint64)]
    for batch in batches:
        found.append(np.array([_key_hash(_plain(one)) for one in batch["object_id"].to_pylist()], np.uint64))
    hashes = np.sort(np.concatenate(found))
    return frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def member_keys(object_ids: list[str], shared: frozenset[int]) -> list[str]:
    """A tar member's key for each id: characters other than letters, digits, '_' and '-' become '_'.

    Ids that would come out the same, or too long, end in 16 hex digits of their SHA-256 instead.
    """
    plain = ((_plain(object_id), object_id) for object_id in object_ids)
    return [
        key if 0 < len(key) <= MAX_KEY and not (shared and _key_hash(key) in shared) else _digested(key, object_id)
        for key, object_id in plain
    ]


def _plain(object_id: str) -> str:
    return _NOT_IN_KEYS.sub("_", object_id)


def _key_hash(key: str) -> int:
    return int.from_bytes(_digest(key.encode()), "big")


def _digested(key: str, object_id: str) -> str:
    return f"{key[: MAX_KEY - 17]}-{hashlib.sha256(object_id.encode()).hexdigest()[:16]}"
