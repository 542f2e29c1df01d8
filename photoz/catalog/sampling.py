"""Random but repeatable samples: the order of rows by a hash of their ids."""

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_HASHED_AT_ONCE = 65_536


def shuffled_order(object_ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Row numbers in the order of a hash of the ids, so that any prefix of the rows is a random sample."""
    hashes = _hashes(object_ids)
    order = np.argsort(hashes, kind="stable")
    if (hashes[order[1:]] == hashes[order[:-1]]).any():  # by text then
        order = np.lexsort((np.array(object_ids.to_pylist()), hashes))
    return order


def are_unique(object_ids: pa.Array | pa.ChunkedArray) -> bool:
    """Whether no id is there twice. Texts are compared only if two have the same hash: they take much memory."""
    hashes = np.sort(_hashes(object_ids))
    return not (hashes[1:] == hashes[:-1]).any() or pc.count_distinct(object_ids).as_py() == len(object_ids)


def _hashes(object_ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    parts = (object_ids[start : start + _HASHED_AT_ONCE] for start in range(0, len(object_ids), _HASHED_AT_ONCE))
    return np.fromiter((_hash(text) for part in parts for text in part.to_pylist()), np.uint64, len(object_ids))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
