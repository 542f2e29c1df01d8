"""SDSS as a survey: facts, and SkyServer's SQL and JPEG cutouts behind the jobs' protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from photoz.bands import RGB
from photoz.surveys.sdss.bands import BANDS
from photoz.surveys.sdss.server import Server
from photoz.surveys.survey import Band, CatalogQuery, Column, CutoutLimits

if TYPE_CHECKING:
    from photoz.images.picture import NoCutout
    from photoz.regions import Box

SCALE_ARCSEC_PER_PX = 0.396127
_EXPLORE = "https://skyserver.sdss.org/dr{release}/VisualTools/explore/summary?objId={objid}"


@dataclass(frozen=True, kw_only=True)
class Sdss:
    """A data release of SDSS, or a sky that answers like one."""

    name: str
    title: str
    release: int
    simulated: bool = False
    caveat: str = ""

    bands: ClassVar[tuple[Band, ...]] = BANDS
    selections: ClassVar[dict[str, str]] = {
        "mgs": "SDSS Main Galaxy Sample",
        "boss": "LOWZ and CMASS",
        "seed": "the reference student project's query",
    }
    photometric_selections: ClassVar[tuple[str, ...]] = ("mgs",)
    columns: ClassVar[dict[str, Column]] = {
        "objid": Column("uint64", "photometric object id of the survey"),
        "specobjid": Column("uint64", "spectrum id of the survey"),
        "run": Column("int32", "imaging run"),
        "camcol": Column("int32", "camera column, 1 to 6"),
        "field": Column("int32", "field number within the run"),
    }
    cutout_limits: ClassVar[CutoutLimits] = CutoutLimits(
        bands=RGB, sizes_px=range(64, 2049), default_px=64, scale_arcsec_per_px=SCALE_ARCSEC_PER_PX
    )

    def identity(self, url: str | None) -> dict[str, Any]:
        """Its name: a release does not change."""
        return {"name": self.name}

    @contextmanager
    def open(self, url: str | None) -> Iterator[SdssServer]:
        """SkyServer, at 60 queries a minute as documented; the rate of cutouts is our own choice, out of politeness."""
        base_url = (url or "https://skyserver.sdss.org").rstrip("/")
        yield SdssServer(
            self, Server(base_url=base_url, release=self.release, queries_per_minute=60, requests_per_s=20)
        )

    def link(self, object_id: str) -> str | None:
        """SkyServer's page on `sdss-dr17/<objid>`; None for ids of another form."""
        survey, _, objid = object_id.partition("/")
        if survey != self.name or not (objid.isascii() and objid.isdigit()):
            return None
        return _EXPLORE.format(release=self.release, objid=objid)


@dataclass(frozen=True)
class SdssServer:
    """SDSS at one server."""

    survey: Sdss
    server: Server

    @property
    def base_url(self) -> str:
        """See OpenSurvey."""
        return self.server.base_url

    def query(self, selection: str, photometric: bool, boxes: Sequence[Box], sharers: int) -> CatalogQuery:
        """See OpenSurvey."""
        from photoz.surveys.sdss.queries import SdssQuery, sky_query  # astroquery takes seconds to import

        return SdssQuery(self.survey.name, sky_query(selection, photometric, boxes), self.server, sharers)

    def cutouts(
        self, positions_deg: Iterable[tuple[float, float]], size_px: int, scale_arcsec_per_px: float, sharers: int
    ) -> Iterator[bytes | NoCutout]:
        """See OpenSurvey."""
        from photoz.surveys.sdss.jpeg import CutoutService, fetch_cutouts

        limit = self.server.requests_per_s
        service = CutoutService(
            base_url=self.base_url,
            release=self.server.release,
            size_px=size_px,
            scale_arcsec_per_px=scale_arcsec_per_px,
            requests_per_s=limit / sharers if limit else None,
        )
        return fetch_cutouts(service, positions_deg)


SDSS_DR17 = Sdss(name="sdss-dr17", title="SDSS's SkyServer", release=17)
