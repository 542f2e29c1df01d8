"""The survey's colour cutouts as stamps."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from photoz.data.layout import ImageFormat
from photoz.images.picture import NoCutout
from photoz.surveys import Survey
from photoz.surveys.sdss.jpeg import CutoutService, fetch_cutouts

BANDS = ("i", "r", "g")  # ImgCutout maps them to red, green and blue


def cutout_format(size_px: int, scale_arcsec_per_px: float) -> ImageFormat:
    """What ImgCutout's JPEGs look like."""
    return ImageFormat(
        format="jpg",
        channels=3,
        height=size_px,
        width=size_px,
        dtype="uint8",
        source="jpeg",
        bands=BANDS,
        scale_arcsec_per_px=scale_arcsec_per_px,
    )


@dataclass(frozen=True)
class CutoutImages:
    """JPEGs from a running survey, whose limit on requests is split evenly among `sharers` tasks."""

    survey: Survey
    image: ImageFormat
    sharers: int

    def stamps(self, galaxies: Iterable[pa.Table]) -> Iterator[bytes | NoCutout]:
        """Each galaxy's member for the tar, in order, or why it has none."""
        limit, scale = self.survey.requests_per_s_limit, self.image.scale_arcsec_per_px
        assert scale is not None
        service = CutoutService(
            base_url=self.survey.base_url,
            size_px=self.image.width,
            scale_arcsec_per_px=scale,
            requests_per_s=limit / self.sharers if limit else None,
        )
        positions_deg = (
            position
            for rows in galaxies
            for position in zip(rows["ra"].to_pylist(), rows["dec"].to_pylist(), strict=True)
        )
        return fetch_cutouts(service, positions_deg)
