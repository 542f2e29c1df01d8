"""Which galaxies go to which shard, decided by the catalogue alone, so that slices and resumed runs agree."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

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


def plan_shards(galaxies: pa.Table, samples_per_shard: int) -> list[PlannedShard]:
    """Cut each split into shards of (nearly) equal size, at most `samples_per_shard`, each a random sample of it.

    Order is by a hash of object_id, so it does not depend on the catalogue's. Raises BadInput for a split that
    can't be part of a file name.
    """
    order = _shuffled(galaxies["object_id"].to_pylist())
    splits = np.array([split or ALL for split in galaxies["split"].to_pylist()], dtype=object)[order]
    plan: list[PlannedShard] = []
    for split in sorted(set(splits)):
        if not _SPLIT.fullmatch(split):
            raise BadInput(f"split {split!r}: expected up to 32 of a-z, 0-9 and '_', such as train, val, test")
        rows = order[splits == split]
        shards = -(-len(rows) // samples_per_shard)
        plan += [PlannedShard(shard_name(split, i), part) for i, part in enumerate(np.array_split(rows, shards))]
    return plan


def _shuffled(object_ids: list[str]) -> NDArray[np.int64]:
    """Row numbers ordered by a hash of the id. Raises BadInput for an id that comes twice."""
    repeated = [object_id for object_id, times in Counter(object_ids).items() if times > 1]
    if repeated:
        raise BadInput(f"object_id {repeated[0]!r} comes twice in the catalogue; each galaxy needs an id of its own")
    hashes = [hashlib.blake2b(object_id.encode(), digest_size=8).digest() for object_id in object_ids]
    return np.array(sorted(range(len(object_ids)), key=lambda row: (hashes[row], object_ids[row])), dtype=np.int64)


def member_keys(object_ids: list[str]) -> list[str]:
    """A tar member's key for each id: characters other than letters, digits, '_' and '-' become '_'.

    Ids that would come out the same, or too long, end in 16 hex digits of their SHA-256 instead.
    """
    plain = [_NOT_IN_KEYS.sub("_", object_id) for object_id in object_ids]
    times = Counter(plain)
    return [
        key if times[key] == 1 and 0 < len(key) <= MAX_KEY else _digested(key, object_id)
        for key, object_id in zip(plain, object_ids, strict=True)
    ]


def _digested(key: str, object_id: str) -> str:
    return f"{key[: MAX_KEY - 17]}-{hashlib.sha256(object_id.encode()).hexdigest()[:16]}"
