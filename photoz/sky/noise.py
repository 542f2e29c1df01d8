"""Sky noise as a property of the sky's pixel grid: the same pixel has the same noise in every cutout."""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

_NORMALS = ndtri((np.arange(65536) + 0.5) / 65536)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A, _MIX_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mixed_hash(values: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """splitmix64 of each value (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        mixed = np.asarray(values).astype(np.uint64) + _GOLDEN
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_A
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_B
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def hash_of(*parts: int) -> int:
    """One 64-bit hash of several integers, order mattering."""
    mixed = 0
    for part in parts:
        mixed = int(mixed_hash(np.uint64((mixed ^ part) & 0xFFFFFFFFFFFFFFFF)))
    return mixed


def unit_noise(key: int, x0: int, y0: int, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Unit normal noise, shape (4, height, width), of the grid `key` from pixel (x0, y0) on.

    Each pixel's hash gives four 16-bit quantiles, so the noise ends at 4.3 sigma.
    """
    height, width = shape
    rows = mixed_hash(np.arange(y0, y0 + height).astype(np.uint64) ^ np.uint64(key))
    hashes = mixed_hash(rows[:, None] ^ mixed_hash(np.arange(x0, x0 + width))[None, :])
    lanes = hashes.view(np.uint16).reshape(height, width, 4)
    return np.ascontiguousarray(np.moveaxis(_NORMALS[lanes], 2, 0))
