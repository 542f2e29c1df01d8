"""A survey's colour cutouts as stamps."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from photoz.data.layout import ImageFormat
from photoz.images.picture import NoCutout
from photoz.surveys.survey import CutoutLimits, OpenSurvey


def cutout_format(limits: CutoutLimits, size_px: int, scale_arcsec_per_px: float) -> ImageFormat:
    """What the survey's JPEGs of that size look like."""
    return ImageFormat(
        format="jpg",
        channels=3,
        height=size_px,
        width=size_px,
        dtype="uint8",
        source="jpeg",
        bands=limits.bands,
        scale_arcsec_per_px=scale_arcsec_per_px,
    )


@dataclass(frozen=True)
class CutoutImages:
    """JPEGs from a survey, whose limit on requests is split evenly among `sharers` tasks."""

    survey: OpenSurvey
    image: ImageFormat
    sharers: int

    def stamps(self, galaxies: Iterable[pa.Table]) -> Iterator[bytes | NoCutout]:
        """Each galaxy's member for the tar, in order, or why it has none."""
        scale = self.image.scale_arcsec_per_px
        assert scale is not None
        positions_deg = (
            position
            for rows in galaxies
            for position in zip(rows["ra"].to_pylist(), rows["dec"].to_pylist(), strict=True)
        )
        return self.survey.cutouts(positions_deg, self.image.width, scale, self.sharers)
