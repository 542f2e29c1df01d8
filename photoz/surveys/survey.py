"""What a survey is to the jobs: bands, selections, catalogue queries, image services, links. No IO here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # --help needs none of these, and they take half a second to import
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from photoz.images.picture import NoCutout
    from photoz.regions import Box

HASH_RANGE = 2**31 - 1
"""A survey's rows are paged and sampled by a hash of their id, an integer in [0, HASH_RANGE)."""


@dataclass(frozen=True)
class Band:
    """A photometric band: effective wavelength in nm, and its extinction A / E(B-V) (both None where unknown)."""

    name: str
    wavelength_nm: float | None = None
    extinction: float | None = None


@dataclass(frozen=True)
class Column:
    """A catalogue column that only this survey has."""

    type: str  # as pyarrow names it: uint64, float32
    description: str
    unit: str = ""


@dataclass(frozen=True)
class CutoutLimits:
    """A survey's colour cutouts: which bands are red, green and blue, their sizes in pixels and their scale."""

    bands: tuple[str, str, str]
    sizes_px: range
    default_px: int
    scale_arcsec_per_px: float


class CatalogQuery(Protocol):
    """One selection on one part of the sky, paged by the hash of the rows' ids."""

    @property
    def steps(self) -> Sequence[str]:
        """Names of the rows before any cut, and of each cut, for the attrition table."""

    def count(self, cuts: int) -> int:
        """Rows that the first `cuts` cuts leave."""

    def page(self, low: int, high: int) -> pa.Table:
        """The selected rows with a hash from `low` up to, not including, `high`, as the survey names them.

        Raises TryAgain if no complete reply comes, BadInput if the survey can't be reached, PhotozError if it refuses.
        """

    def to_catalog(self, rows: pa.Table) -> pa.Table:
        """Rows of `page` with the catalogue's columns: object_id, ra, dec, mag_*, ebv, z_spec, the survey's own."""

    def order(self, rows: pa.Table) -> NDArray[np.int64]:
        """Row numbers of catalogue rows by the hash of their ids, then by id."""


class OpenSurvey(Protocol):
    """A survey that can be asked now. Several processes, `sharers`, keep to its rate limits together."""

    @property
    def base_url(self) -> str:
        """Address of its server."""

    def query(self, selection: str, photometric: bool, boxes: Sequence[Box], sharers: int) -> CatalogQuery:
        """Galaxies of a selection inside any of the boxes (none: the whole survey)."""

    def cutouts(
        self, positions_deg: Iterable[tuple[float, float]], size_px: int, scale_arcsec_per_px: float, sharers: int
    ) -> Iterator[bytes | NoCutout]:
        """The JPEG at each (ra, dec), in order, or why there is none for good."""


class Survey(Protocol):
    """A survey's facts, known without asking it."""

    @property
    def name(self) -> str:
        """As in --survey, release included: `sdss-dr17`."""

    @property
    def title(self) -> str:
        """A few words for --help."""

    @property
    def simulated(self) -> bool:
        """Whether its images are drawn rather than observed."""

    @property
    def caveat(self) -> str:
        """What readers of a report must know of simulated images; empty for real ones."""

    @property
    def bands(self) -> tuple[Band, ...]:
        """By wavelength."""

    @property
    def selections(self) -> Mapping[str, str]:
        """Name and title of each galaxy sample; the first is the default."""

    @property
    def photometric_selections(self) -> Sequence[str]:
        """Those that can be made without spectra."""

    @property
    def columns(self) -> Mapping[str, Column]:
        """Catalogue columns that only this survey has."""

    @property
    def cutout_limits(self) -> CutoutLimits | None:
        """None where it has no service for colour cutouts."""

    def identity(self, url: str | None) -> dict[str, Any]:
        """What decides the survey's content, for fingerprints."""

    def open(self, url: str | None) -> AbstractContextManager[OpenSurvey]:
        """The survey at its own address, or at `url`, until the block is left."""

    def link(self, object_id: str) -> str | None:
        """The survey's web page about a galaxy, if it has one."""
