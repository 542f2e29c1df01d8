"""Random but repeatable samples: a hash that SQL Server, DuckDB and NumPy compute alike, and the order of rows."""

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

HASH_RANGE = 2**31 - 1
"""Hashes are integers in [0, HASH_RANGE)."""

_HASHED_AT_ONCE = 65_536

# Primes and multipliers below 2**31, so that no product leaves SQL Server's signed 64 bits, and every literal
# is an int there. Two moduli keep all 64 bits of the id; the xor breaks the lattice that one product would leave.
_MODULI = (2147483647, 2147483629)
_MULTIPLIERS = (1103515245, 1664525777)
_LAST_MULTIPLIER = 1220703125


def mixed_hash_sql(column: str) -> str:
    """T-SQL for the mixed hash of a bigint id; its smallest N values pick N rows at random, and always the same."""
    first, second = (
        f"(({column} % {modulus}) * {multiplier} % {modulus})"
        for modulus, multiplier in zip(_MODULI, _MULTIPLIERS, strict=True)
    )
    return f"(({first} ^ {second}) * {_LAST_MULTIPLIER} % {HASH_RANGE})"


def mixed_hash(ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The same hash as `mixed_hash_sql`, for ids below 2**63."""
    first, second = (
        (ids % np.uint64(modulus)) * np.uint64(multiplier) % np.uint64(modulus)
        for modulus, multiplier in zip(_MODULI, _MULTIPLIERS, strict=True)
    )
    hashes: npt.NDArray[np.uint64] = (first ^ second) * np.uint64(_LAST_MULTIPLIER) % np.uint64(HASH_RANGE)
    return hashes


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
