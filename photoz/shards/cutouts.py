"""The survey's colour cutouts as stamps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from photoz.data.layout import ImageFormat
from photoz.survey import open_survey
from photoz.survey.cutouts import CutoutService, fetch_cutouts
from photoz.survey.picture import NoCutout

BANDS = ("i", "r", "g")  # ImgCutout maps them to red, green and blue


@dataclass(frozen=True)
class CutoutImages:
    """A source of stamps; see `open_cutouts`."""

    service: CutoutService
    image: ImageFormat

    def stamps(self, galaxies: pa.Table) -> Iterator[bytes | NoCutout]:
        """Each galaxy's member for the tar, in order, or why it has none."""
        positions_deg = zip(galaxies["ra"].to_pylist(), galaxies["dec"].to_pylist(), strict=True)
        return fetch_cutouts(self.service, positions_deg)


@contextmanager
def open_cutouts(survey_name: str, url: str | None, size_px: int, scale: float) -> Iterator[CutoutImages]:
    """A source of `size_px` squared JPEGs at `scale` arcsec/px, while the survey (perhaps started here) answers."""
    with open_survey(survey_name, url) as survey:
        service = CutoutService(
            base_url=survey.base_url,
            size_px=size_px,
            scale_arcsec_per_px=scale,
            requests_per_s=survey.requests_per_s_limit,
        )
        yield CutoutImages(service, cutout_format(size_px, scale))


def cutout_format(size_px: int, scale: float) -> ImageFormat:
    """What ImgCutout's JPEGs look like."""
    return ImageFormat(
        format="jpg",
        channels=3,
        height=size_px,
        width=size_px,
        dtype="uint8",
        source="jpeg",
        bands=BANDS,
        scale_arcsec_per_px=scale,
    )
