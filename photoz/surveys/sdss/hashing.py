"""A hash of ids that SQL Server, DuckDB and NumPy compute alike, for random but repeatable samples."""

import numpy as np
import numpy.typing as npt

from photoz.surveys.survey import HASH_RANGE

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
