"""The faint and unrelated objects of every patch of sky, drawn from number counts as a function of position."""

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from photoz.sky.noise import hash_of
from photoz.sky.photometry import flux_nmgy

Floats = npt.NDArray[np.float64]

CELL_DEG = 1 / 30
FAINTEST_R = 23.5
# Counts to FAINTEST_R per square degree, power laws through the SDSS counts: 9,000 galaxies to r = 22 (Yasuda et
# al. 2001 and the deeper counts compiled there) and, at the galactic pole, 1,500 stars to r = 20.
GALAXIES_PER_DEG2, GALAXY_SLOPE = 40_000.0, 0.43
STARS_PER_DEG2, STAR_SLOPE = 6_000.0, 0.17
_BRIGHTEST_R = 12.0


@dataclass(frozen=True)
class FieldObjects:
    """Objects of one cell: positions (deg), fluxes u to z (nanomaggies), and shapes (radius arcsec, angle rad)."""

    ra: Floats
    dec: Floats
    flux: Floats
    point: npt.NDArray[np.bool_]
    r50_arcsec: Floats
    axis_ratio: Floats
    angle: Floats
    sersic: Floats

    def brighter_than(self, mag_r: float) -> "FieldObjects":
        """Those up to this r magnitude."""
        if mag_r > FAINTEST_R:
            return self
        bright = self.flux[:, 2] >= flux_nmgy(mag_r)
        return FieldObjects(**{field.name: getattr(self, field.name)[bright] for field in fields(self)})


def cells_around(ra: float, dec: float, radius_deg: float) -> list[tuple[int, int]]:
    """Cells (declination band, number in the band) that a cone touches."""
    low, high = max(dec - radius_deg, -90.0), min(dec + radius_deg, 90.0 - 1e-9)
    cells = []
    for band in range(int((low + 90) // CELL_DEG), int((high + 90) // CELL_DEG) + 1):
        count = _cells_in_band(band)
        stretch = max(np.cos(np.radians(min(max(abs(low), abs(high)), 89.99))), 1e-3)
        if radius_deg / stretch >= 180:
            cells += [(band, number) for number in range(count)]
            continue
        first = int((ra - radius_deg / stretch) // (360 / count))
        last = int((ra + radius_deg / stretch) // (360 / count))
        cells += [(band, number) for number in sorted({number % count for number in range(first, last + 1)})]
    return cells


def _cells_in_band(band: int) -> int:
    middle = np.radians((band + 0.5) * CELL_DEG - 90)
    return max(1, round(360 * float(np.cos(middle)) / CELL_DEG))


def _magnitudes(count: int, slope: float, rng: np.random.Generator) -> Floats:
    """r magnitudes of a power law of counts, 10^(slope r), up to FAINTEST_R."""
    return np.maximum(FAINTEST_R + np.log10(1 - rng.random(count)) / slope, _BRIGHTEST_R)


def _star_density(ra: float, dec: float) -> float:
    """Stars per square degree: rising towards the galactic plane as csc|b|, held at six times the pole's."""
    pole_ra, pole_dec = np.radians(192.8595), np.radians(27.1283)
    sin_b = np.sin(np.radians(dec)) * np.sin(pole_dec)
    sin_b += np.cos(np.radians(dec)) * np.cos(pole_dec) * np.cos(np.radians(ra) - pole_ra)
    return float(STARS_PER_DEG2 * min(1 / max(abs(sin_b), 1e-6), 6.0))


def _star_colours(mag_r: Floats, rng: np.random.Generator) -> Floats:
    """u-g, g-r, r-i, i-z along the stellar locus of Covey et al. (2007); M dwarfs take over among the faint."""
    count = len(mag_r)
    dwarf = rng.random(count) < 0.6 / (1 + np.exp(-(mag_r - 19.0) / 0.8))
    g_r = np.where(dwarf, rng.normal(1.42, 0.08, count), np.clip(rng.gamma(3.0, 0.13, count) + 0.15, 0.1, 1.3))
    r_i = np.where(dwarf, 0.55 + rng.gamma(2.0, 0.3, count), 0.03 + 0.35 * g_r**1.4)
    return np.column_stack([0.75 + 1.25 * g_r, g_r, r_i, 0.55 * r_i])


def _galaxy_colours(mag_r: Floats, rng: np.random.Generator) -> Floats:
    """u-g, g-r, r-i, i-z of field galaxies: a red third that reddens with magnitude (redshift), a blue rest."""
    red = rng.random(len(mag_r)) < 0.4
    deep = np.clip(mag_r - 17, 0, 6)
    g_r = np.where(red, np.minimum(0.95 + 0.16 * deep, 1.65), 0.5 + 0.05 * deep) + rng.normal(0, 0.13, len(mag_r))
    r_i = np.where(red, 0.38 + 0.07 * deep, 0.2 + 0.04 * deep) + rng.normal(0, 0.08, len(mag_r))
    return np.column_stack([np.where(red, 1.7, 1.1) + 0 * g_r, g_r, r_i, 0.7 * r_i])


@lru_cache(maxsize=4096)
def field_objects(seed: int, band: int, number: int) -> FieldObjects:
    """The objects of one cell, the same whenever and wherever it is asked for."""
    rng = np.random.default_rng(hash_of(seed, band, number))
    width = 360 / _cells_in_band(band)
    ra, dec = number * width, band * CELL_DEG - 90
    area = width * np.cos(np.radians(dec + CELL_DEG / 2)) * CELL_DEG
    galaxies = int(rng.poisson(GALAXIES_PER_DEG2 * area))
    stars = int(rng.poisson(_star_density(ra, dec) * area))
    count = galaxies + stars
    mag_r = np.concatenate([_magnitudes(galaxies, GALAXY_SLOPE, rng), _magnitudes(stars, STAR_SLOPE, rng)])
    colours = np.concatenate([_galaxy_colours(mag_r[:galaxies], rng), _star_colours(mag_r[galaxies:], rng)])
    u_g, g_r, r_i, i_z = colours.T
    mags = mag_r[:, None] + np.column_stack([u_g + g_r, g_r, np.zeros(count), -r_i, -r_i - i_z])
    size = np.clip(10 ** (0.40 - 0.13 * (mag_r - 17)) * np.exp(0.35 * rng.standard_normal(count)), 0.15, 12)
    return FieldObjects(
        ra=ra + width * rng.random(count),
        dec=dec + CELL_DEG * rng.random(count),
        flux=flux_nmgy(mags),
        point=np.arange(count) >= galaxies,
        r50_arcsec=size,
        axis_ratio=0.25 + 0.75 * np.sqrt(rng.random(count)),
        angle=np.pi * rng.random(count),
        # Beyond r = 21 the seeing hides what kind of profile it is.
        sersic=np.where(mag_r > 21.0, 0.5, np.where(g_r > 0.8, 3.0, 1.0)),
    )
