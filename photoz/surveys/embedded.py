"""The embedded sky: a simulated SDSS with a server of its own, so that everything runs without a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from photoz.surveys.sdss.server import Server
from photoz.surveys.sdss.survey import SDSS_DR17, Sdss, SdssServer


@dataclass(frozen=True, kw_only=True)
class EmbeddedSky(Sdss):
    """SDSS's protocol, spoken by photoz.sky."""

    def identity(self, url: str | None) -> dict[str, Any]:
        """The sky's size, seed and version besides its name."""
        from photoz.sky import sky_identity

        return {"name": self.name, **sky_identity(url)}

    @contextmanager
    def open(self, url: str | None) -> Iterator[SdssServer]:
        """Run a server until the block is left, where no `url` names one that runs."""
        if url is not None:
            yield self._at(url)
            return
        from photoz.sky import open_embedded_sky

        with open_embedded_sky() as own_url:
            yield self._at(own_url)

    def _at(self, url: str) -> SdssServer:
        return SdssServer(self, Server(base_url=url.rstrip("/"), release=self.release))

    def link(self, object_id: str) -> None:
        """None: nobody has a page on a simulated galaxy."""


EMBEDDED = EmbeddedSky(
    name="embedded",
    title="a simulated sky, no network",
    release=SDSS_DR17.release,
    simulated=True,
    caveat="The galaxies' positions, redshifts and fluxes are real SDSS measurements, but their images were drawn from "
    "those fluxes. The scores show that the software works; they are no result about the sky.",
)
