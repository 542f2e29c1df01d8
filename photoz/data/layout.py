"""The shape of a shard set: file names, index columns, and what its images look like. No IO here.

Letters in names of arrays: b image, c channel, h row, w column.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from photoz.errors import BadFormat

FAILURES = "failures.parquet"
ALL = "all"  # the split of galaxies that have none, and the word for every shard there is
DTYPES = {"uint8": "|u1", "int16": "<i2", "float32": "<f4"}

MEMBER_COLUMNS = ("key", "offset", "length", "json_offset", "json_length")
BANDS = ("u", "g", "r", "i", "z")
CATALOG_COLUMNS = (
    "object_id", "ra", "dec", "z_spec", "z_spec_err",
    *(f"mag_{band}" for band in BANDS), *(f"mag_err_{band}" for band in BANDS),
    "ebv", "healpix", "split", "z_phot_survey",
)  # fmt: skip


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
        return asdict(self) | {"bands": list(self.bands)}

    @classmethod
    def from_summary(cls, found: Mapping[str, Any]) -> "ImageFormat":
        """Read it back; BadFormat if a field is missing or its value is unknown."""
        try:
            image = cls(**{**found, "bands": tuple(found["bands"])})
        except (KeyError, TypeError) as error:
            raise BadFormat(f"summary.image of a shards artifact: {error}; it was made by another format") from None
        if image.format not in ("jpg", "npy") or image.dtype not in DTYPES:
            raise BadFormat(f"summary.image: format {image.format!r} of {image.dtype!r}; expected jpg or npy")
        return image
