"""The shape of a shard set: file names, index columns, and what its images look like. No IO here.

Letters in names of arrays: b image, c channel, h row, w column, k context number.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from photoz.errors import BadFormat

FAILURES = "failures.parquet"
ALL = "all"  # the split of galaxies that have none, and the word for every shard there is
MOST_VALUES = 2**26  # of one image, as 8192 x 8192: more is no stamp of a galaxy
DTYPES = {"uint8": "|u1", "int16": "<i2", "float32": "<f4"}


class ContextNumber(NamedTuple):
    """A number of each galaxy that networks may take beside its image."""

    column: str  # of the index
    most: float  # a larger size, or an infinite one, is no measurement


# By the name that a network asks for it by.
CONTEXT = {
    "ebv": ContextNumber("ebv", 1000.0),  # Galactic reddening E(B-V), mag
}
# Columns that training and inference need; a catalogue may lack all but the first three.
COMPUTED_WITH = ("object_id", "ra", "dec", "z_spec", *(number.column for number in CONTEXT.values()))

MEMBER_COLUMNS = ("key", "offset", "length", "json_offset", "json_length")


def shard_name(split: str | None, number: int) -> str:
    """Name of the `number`-th shard of a split, such as `train-000000`."""
    return f"{split or ALL}-{number:06d}"


def split_of(shard: str) -> str:
    """The split whose galaxies a shard holds."""
    return shard.rpartition("-")[0]


def tar_name(shard: str) -> str:
    """Payload file with a shard's images and rows."""
    return f"{shard}.tar"


def index_name(shard: str) -> str:
    """Payload file with a shard's index."""
    return f"{shard}.index.parquet"


def check_columns(rows: pa.Table, where: str) -> None:
    """Raise BadFormat unless the columns of an index that are computed with are of the catalogue's types."""
    for name in set(COMPUTED_WITH).intersection(rows.column_names):
        kind = rows[name].type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        is_number = pa.types.is_floating(kind) or pa.types.is_null(kind)
        if not (is_text if name == "object_id" else is_number):
            expected = "text" if name == "object_id" else "decimal numbers"
            raise BadFormat(
                f"{where}: column {name} holds {str(kind)[:60]}, expected {expected}; make the shards again"
            )


def context_of(rows: pa.Table, names: Sequence[str]) -> NDArray[np.float32]:
    """Context numbers of an index's rows by name, (b, k); NaN where unknown."""
    context_bk = np.full((len(rows), len(names)), np.nan, np.float32)
    for k, (column, most) in enumerate(CONTEXT[name] for name in names):
        if column in rows.column_names:
            values_b = pc.cast(rows[column], pa.float64()).to_numpy(zero_copy_only=False)
            context_bk[:, k] = np.where(np.abs(values_b) < most, values_b, np.nan)
    return context_bk


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """What every image of a shard set looks like: `channels` x `height` x `width` of `dtype`, stored as `format`."""

    format: Literal["jpg", "npy"]
    channels: int
    height: int
    width: int
    dtype: str  # uint8, int16 or float32, little endian
    source: str  # jpeg, files or ugriz
    bands: tuple[str, ...] = ()  # in channel order; empty where unknown
    scale_arcsec_per_px: float | None = None
    unit: str = ""  # of the pixels, where the files state one

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width), the order in which images are handed out."""
        return self.channels, self.height, self.width

    @property
    def image_bytes(self) -> int:
        """Bytes of one decoded image."""
        return self.channels * self.height * self.width * np.dtype(self.dtype).itemsize

    def npy_header(self) -> bytes:
        """The header that every npy member starts with: NPY format 1.0, C order, (channels, height, width)."""
        fields = f"{{'descr': '{DTYPES[self.dtype]}', 'fortran_order': False, 'shape': {self.shape}, }}"
        return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + fields.ljust(117).encode() + b"\n"

    def to_summary(self) -> dict[str, Any]:
        """The form in which a manifest's summary keeps it."""
        found = asdict(self) | {"bands": list(self.bands)}
        return found if self.unit else {name: value for name, value in found.items() if name != "unit"}

    @classmethod
    def from_summary(cls, found: Any) -> "ImageFormat":
        """Read it back; BadFormat if a field is missing or can't be, before any memory is taken for it."""
        try:
            image = cls(**{**found, "bands": tuple(found["bands"])})
        except (KeyError, TypeError) as error:
            raise BadFormat(f"summary.image of a shards artifact: {error}; it was made by another format") from None
        problem = image._problem()
        if problem:
            raise BadFormat(f"summary.image of a shards artifact: {problem}; make the shards again")
        return image

    def _problem(self) -> str | None:
        """What can't be, if anything."""
        if self.format not in ("jpg", "npy") or self.dtype not in tuple(DTYPES):
            return f"format {self.format!r} of {self.dtype!r}, expected jpg or npy of {', '.join(DTYPES)}"
        if not all(type(size) is int and 1 <= size <= MOST_VALUES for size in self.shape):
            return f"shape {str(self.shape)[:60]}, expected channels, height and width from 1 to {MOST_VALUES}"
        if self.channels * self.height * self.width > MOST_VALUES:
            return f"shape {self.shape} has more than {MOST_VALUES} values"
        if self.format == "jpg" and (self.channels not in (1, 3) or self.dtype != "uint8"):
            return f"jpg of {self.channels} channels of {self.dtype}, expected 1 or 3 of uint8"
        if not all(isinstance(text, str) for text in (self.source, self.unit, *self.bands)):
            texts = f"source {self.source!r}, unit {self.unit!r} and bands {self.bands}"
            return f"{texts[:160]}, expected text"
        scale = self.scale_arcsec_per_px
        if scale is not None and not (type(scale) in (int, float) and 0 < scale < math.inf):
            return f"scale_arcsec_per_px {str(scale)[:60]!r}, expected a number above 0"
        return None
