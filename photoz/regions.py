"""Parts of the sky: cones and boxes. A few boxes in RA and Dec cover each for SQL; `contains` is exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from photoz.errors import BadInput

if TYPE_CHECKING:  # settings parse regions, and --help does without numpy
    import numpy as np
    import numpy.typing as npt

    Degrees = npt.NDArray[np.float64]

CONE_SYNTAX = 'expected "cone RA DEC RADIUS" in degrees, such as "cone 180.5 2.0 1.5"'
BOX_SYNTAX = 'expected "box RA0 RA1 DEC0 DEC1" in degrees, such as "box 350 10 -1 1" across RA 0'


@dataclass(frozen=True)
class Box:
    """RA from `ra_min` east to `ra_max` (through 0 where ra_max < ra_min), Dec from `dec_min` to `dec_max`, deg."""

    ra_min: float
    ra_max: float
    dec_min: float
    dec_max: float

    def boxes(self) -> list[Box]:
        """The box itself."""
        return [self]

    def contains(self, ra_deg: Degrees, dec_deg: Degrees) -> npt.NDArray[np.bool_]:
        """Which positions are inside."""
        if self.ra_min <= self.ra_max:
            in_ra = (ra_deg >= self.ra_min) & (ra_deg <= self.ra_max)
        else:
            in_ra = (ra_deg >= self.ra_min) | (ra_deg <= self.ra_max)
        return in_ra & (dec_deg >= self.dec_min) & (dec_deg <= self.dec_max)

    def width(self) -> float:
        """Extent in RA, deg."""
        return 360.0 if self.ra_max == self.ra_min + 360 else (self.ra_max - self.ra_min) % 360

    def area(self) -> float:
        """Area in units of a square degree at the equator."""
        return self.width() * math.degrees(math.sin(math.radians(self.dec_max)) - math.sin(math.radians(self.dec_min)))

    def padded(self, margin_deg: float) -> Box:
        """A box that is larger by at least `margin_deg` on every side."""
        dec_min, dec_max = max(-90.0, self.dec_min - margin_deg), min(90.0, self.dec_max + margin_deg)
        widest = math.cos(math.radians(max(abs(dec_min), abs(dec_max))))
        pad = margin_deg / widest if widest > 1e-9 else 360.0
        if self.width() + 2 * pad >= 360:
            return Box(0.0, 360.0, dec_min, dec_max)
        return Box((self.ra_min - pad) % 360, (self.ra_max + pad) % 360, dec_min, dec_max)


@dataclass(frozen=True)
class Cone:
    """Everything within `radius` degrees of a position."""

    ra: float
    dec: float
    radius: float

    def boxes(self) -> list[Box]:
        """The cone's bounding box; all right ascensions where it holds a pole."""
        dec_min, dec_max = self.dec - self.radius, self.dec + self.radius
        if dec_min <= -90 or dec_max >= 90:
            return [Box(0.0, 360.0, max(-90.0, dec_min), min(90.0, dec_max))]
        half_width = math.degrees(
            math.asin(min(1.0, math.sin(math.radians(self.radius)) / math.cos(math.radians(self.dec))))
        )
        return [Box((self.ra - half_width) % 360, (self.ra + half_width) % 360, dec_min, dec_max)]

    def contains(self, ra_deg: Degrees, dec_deg: Degrees) -> npt.NDArray[np.bool_]:
        """Which positions are inside (haversine, exact at small radii)."""
        import numpy as np

        ra, dec = np.radians(ra_deg), np.radians(dec_deg)
        ra0, dec0 = math.radians(self.ra), math.radians(self.dec)
        haversine = np.sin((dec - dec0) / 2) ** 2 + np.cos(dec) * math.cos(dec0) * np.sin((ra - ra0) / 2) ** 2
        inside: npt.NDArray[np.bool_] = haversine <= math.sin(math.radians(self.radius) / 2) ** 2
        return inside


class Region(Protocol):
    """What a region can do."""

    def boxes(self) -> list[Box]: ...
    def contains(self, ra_deg: Degrees, dec_deg: Degrees) -> npt.NDArray[np.bool_]: ...


def parse_region(text: str) -> Cone | Box:
    """A region from its flag; BadInput says what is wrong with it."""
    shape, *words = text.replace(",", " ").split() or [""]
    if shape not in ("cone", "box"):
        raise BadInput(f"--region {text!r}: {CONE_SYNTAX}, or {BOX_SYNTAX.removeprefix('expected ')}")
    syntax, count = (CONE_SYNTAX, 3) if shape == "cone" else (BOX_SYNTAX, 4)
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise BadInput(f"--region {text!r}: {syntax}") from None
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise BadInput(f"--region {text!r}: {syntax}")
    return _cone(text, *numbers) if shape == "cone" else _box(text, *numbers)


def _cone(text: str, ra: float, dec: float, radius: float) -> Cone:
    if not -360 <= ra <= 360 or not -90 <= dec <= 90:
        raise BadInput(f"--region {text!r}: no such position; expected RA 0 to 360 and Dec -90 to 90 degrees")
    if not 0 < radius <= 90:
        raise BadInput(f"--region {text!r}: radius {radius:g}; expected above 0 and up to 90 degrees")
    return Cone(ra % 360, dec, radius)


def _box(text: str, ra_min: float, ra_max: float, dec_min: float, dec_max: float) -> Box:
    if not (-360 <= ra_min <= 360 and -360 <= ra_max <= 360 and -90 <= dec_min <= 90 and -90 <= dec_max <= 90):
        raise BadInput(f"--region {text!r}: no such position; expected RA 0 to 360 and Dec -90 to 90 degrees")
    if dec_min >= dec_max or ra_min == ra_max:
        raise BadInput(f"--region {text!r}: the box is empty; {BOX_SYNTAX}")
    if ra_max - ra_min >= 360:
        return Box(0.0, 360.0, dec_min, dec_max)
    return Box(ra_min % 360, ra_max % 360 or 360.0, dec_min, dec_max)
