"""Cutout requests: their parameters and limits, as SkyServer's getjpeg takes them."""

from collections.abc import Mapping
from dataclasses import dataclass

NATIVE_SCALE_ARCSEC = 0.396127
MIN_PIXELS, MAX_PIXELS = 64, 2048
MIN_SCALE, MAX_SCALE = 0.015, 60.0
# What never rises over Apache Point Observatory, latitude 32.78 deg north, is outside the footprint.
SOUTHERN_LIMIT_DEG = -57.2
_EXPECTED = (
    "ra must be in [0,360], dec must be in [-90,90], scale must be in [0.015, 60.0], "
    "height and width must be in [64,2048]."
)


class BadRequest(Exception):
    """Parameters that SkyServer answers with status 400; the message is its own."""


@dataclass(frozen=True)
class Cutout:
    """Centre (deg, within range), arcsec per pixel and size in pixels, all within the service's limits."""

    ra: float
    dec: float
    scale: float = NATIVE_SCALE_ARCSEC
    width: int = 128
    height: int = 128

    @property
    def in_footprint(self) -> bool:
        """Whether the survey has images there."""
        return self.dec >= SOUTHERN_LIMIT_DEG


def parse_cutout(parameters: Mapping[str, str]) -> Cutout:
    """The cutout of a query string. Sizes and scales beyond the limits are clipped to them, as SkyServer does.

    Raises BadRequest for what is missing or not a number.
    """
    if "ra" not in parameters or "dec" not in parameters:
        raise BadRequest(
            "There are not enough parameters to process your request. Enter position (ra,dec) values properly. "
            f"{_EXPECTED}"
        )
    try:
        ra, dec = float(parameters["ra"]), float(parameters["dec"])
        scale = float(parameters.get("scale", NATIVE_SCALE_ARCSEC))
        width, height = int(parameters.get("width", 128)), int(parameters.get("height", 128))
    except ValueError as error:
        raise BadRequest(
            f"The input values are not in correct format. {_EXPECTED} Detail Error Message: {error}"
        ) from None
    if not abs(ra) < 1e6 or not abs(dec) < 1e6 or scale != scale:
        raise BadRequest(f"The input values are not in correct format. {_EXPECTED}")
    dec = (dec + 180) % 360 - 180
    if abs(dec) > 90:  # over the pole, and half way round
        dec, ra = (180 - dec if dec > 0 else -180 - dec), ra + 180
    return Cutout(
        ra=ra % 360,
        dec=dec,
        scale=min(max(scale, MIN_SCALE), MAX_SCALE),
        width=min(max(width, MIN_PIXELS), MAX_PIXELS),
        height=min(max(height, MIN_PIXELS), MAX_PIXELS),
    )
