"""Multi-Order Coverage maps (IVOA) as regions."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import cdshealpix.nested
import numpy as np
import numpy.typing as npt
from astropy.coordinates import Latitude, Longitude
from mocpy import MOC

from photoz.errors import BadInput
from photoz.regions import Box, Cone

MOST_CELLS = 64
MOST_COVER_BOXES = 6  # a query is one URL, and web servers usually refuse more than 2048 characters


@dataclass(frozen=True)
class MocRegion:
    """The sky inside a MOC."""

    moc: MOC

    def boxes(self) -> list[Box]:
        """A few boxes that cover the map, a little generously: those of its cells at a coarser order, merged."""
        order, cells = 0, self._cells(0)
        while order < self.moc.max_order:
            finer = self._cells(order + 1)
            if len(finer) > MOST_CELLS:
                break
            order, cells = order + 1, finer
        return _merged([box for cell in cells for box in _cell_cone(int(cell), order).boxes()])

    def _cells(self, order: int) -> npt.NDArray[np.uint64]:
        """Cells of that order that the map touches."""
        moc = self.moc if order == self.moc.max_order else self.moc.degrade_to_order(order)
        cells: npt.NDArray[np.uint64] = moc.flatten()
        return cells

    def contains(self, ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which positions are inside."""
        inside = self.moc.contains_lonlat(Longitude(ra_deg, u.deg), Latitude(dec_deg, u.deg))
        return np.asarray(inside, dtype=np.bool_)


def _merged(boxes: list[Box]) -> list[Box]:
    """At most MOST_COVER_BOXES boxes, made by merging, again and again, the two that waste the least sky together."""
    while len(boxes) > MOST_COVER_BOXES:
        pairs = itertools.combinations(boxes, 2)
        first, second = min(pairs, key=lambda pair: _around(*pair).area() - pair[0].area() - pair[1].area())
        boxes = [box for box in boxes if box not in (first, second)] + [_around(first, second)]
    return boxes


def _around(first: Box, second: Box) -> Box:
    """The smallest box that holds both, going east from one or the other."""
    dec_min, dec_max = min(first.dec_min, second.dec_min), max(first.dec_max, second.dec_max)
    choices = []
    for west, east in ((first, second), (second, first)):
        width = max(west.width(), (east.ra_min - west.ra_min) % 360 + east.width())
        whole = width >= 360
        choices.append(
            Box(0.0, 360.0, dec_min, dec_max)
            if whole
            else Box(west.ra_min, (west.ra_min + width) % 360, dec_min, dec_max)
        )
    return min(choices, key=Box.area)


def _cell_cone(cell: int, order: int) -> Cone:
    """A cone around a HEALPix cell: its edges bulge, so a tenth more than the furthest corner."""
    longitude, latitude = cdshealpix.nested.healpix_to_lonlat(np.array([cell]), order)
    corner_lon, corner_lat = cdshealpix.nested.vertices(np.array([cell]), order)
    centre = Cone(float(longitude.deg[0]), float(latitude.deg[0]), 0.0)
    furthest = max(
        _separation_deg(centre.ra, centre.dec, float(lon), float(lat))
        for lon, lat in zip(corner_lon.deg.ravel(), corner_lat.deg.ravel(), strict=True)
    )
    return Cone(centre.ra, centre.dec, 1.1 * furthest)


def _separation_deg(ra_1: float, dec_1: float, ra_2: float, dec_2: float) -> float:
    ra_1, dec_1, ra_2, dec_2 = map(math.radians, (ra_1, dec_1, ra_2, dec_2))
    half = math.sin((dec_2 - dec_1) / 2) ** 2 + math.cos(dec_1) * math.cos(dec_2) * math.sin((ra_2 - ra_1) / 2) ** 2
    return math.degrees(2 * math.asin(math.sqrt(min(1.0, half))))


def read_moc(path: Path) -> MocRegion:
    """A MOC from a FITS or JSON file; BadInput if it can't be read or covers nothing."""
    if not path.is_file():
        raise BadInput(f"--moc {path}: no such file; expected a MOC in FITS or JSON")
    as_json = path.read_bytes()[:64].lstrip().startswith(b"{")
    try:
        moc = MOC.load(path, format="json" if as_json else "fits")
    except (ValueError, OSError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"--moc {path}: not a MOC in FITS or JSON ({reason})") from None
    if moc.empty():
        raise BadInput(f"--moc {path}: the MOC covers no sky; expected at least one cell")
    return MocRegion(moc)
