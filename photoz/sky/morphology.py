"""What a galaxy looks like, given its measured fluxes and redshift: type, size, profile and inclination."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_HUBBLE_DISTANCE_MPC = 299_792.458 / 70.0


@dataclass(frozen=True)
class Shapes:
    """Light profiles, one entry a galaxy. Radii are circularised half-light radii in arcsec, angles radians.

    Early types are one Sersic profile of index `sersic`; late types a disk (n = 1) with a bulge (n = 2.5 to 4)
    that holds the fraction `bulge` of the r-band light.
    """

    early: npt.NDArray[np.bool_]
    r50_arcsec: Floats
    axis_ratio: Floats
    angle: Floats
    sersic: Floats
    bulge: Floats


def luminosity_distance_mpc(z: npt.ArrayLike) -> Floats:
    """Luminosity distance for H0 = 70, Omega_m = 0.3, flat (the cosmology of Shen et al. 2003)."""
    grid = np.linspace(0.0, 8.0, 4001)
    inverse_e = 1.0 / np.sqrt(0.3 * (1 + grid) ** 3 + 0.7)
    steps = 0.5 * (inverse_e[1:] + inverse_e[:-1]) * (grid[1] - grid[0])
    comoving = np.concatenate([[0.0], np.cumsum(steps)]) * _HUBBLE_DISTANCE_MPC
    redshift = np.asarray(z, float)
    return np.asarray(np.interp(redshift, grid, comoving) * (1 + redshift))


def is_early(g_r: Floats, z: Floats, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Early type or late, drawn with a probability that rises across the observed g - r valley at that z.

    The valley runs 0.15 mag below the red sequence of the sample itself, g - r = 0.715 + 2.75 z.
    """
    valley = 0.565 + 2.75 * z
    probability = 0.92 / (1 + np.exp(-(g_r - valley) / 0.05)) + 0.04
    return np.asarray(rng.random(len(z)) < probability)


def half_light_radius_kpc(absolute_r: Floats, early: npt.NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Half-light radii (kpc) drawn from the r-band size-luminosity relations of Shen et al. (2003).

    MNRAS 343, 978, equations 14 to 16, types split by concentration. Their early-type line is held above 0.7 kpc,
    for faint red galaxies have much the same size whatever their luminosity (their section 3.1).
    """
    excess = 10 ** np.clip(-0.4 * (absolute_r + 20.52), -30, 30)
    log_late = -0.4 * 0.21 * absolute_r + (0.53 - 0.21) * np.log10(1 + excess) - 1.31
    log_early = np.maximum(-0.4 * 0.60 * absolute_r - 4.63, np.log10(0.7))
    scatter = 0.25 + (0.48 - 0.25) / (1 + excess**2)
    return np.asarray(10 ** np.where(early, log_early, log_late) * np.exp(scatter * rng.standard_normal(len(early))))


def _axis_ratios(early: npt.NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Ellipticals cluster at b/a 0.75; disks of thickness 0.2 are seen at random inclination."""
    elliptical = np.clip(0.75 + 0.16 * rng.standard_normal(len(early)), 0.35, 1.0)
    disk = np.sqrt(rng.random(len(early)) ** 2 * (1 - 0.2**2) + 0.2**2)
    return np.asarray(np.where(early, elliptical, disk))


def draw_shapes(mag_r: Floats, g_r: Floats, z: Floats, rng: np.random.Generator) -> Shapes:
    """Shapes of galaxies of dereddened r magnitude and g - r colour at redshift z."""
    early = is_early(g_r, z, rng)
    distance = luminosity_distance_mpc(z)
    k_correction = np.where(early, 1.0, 0.5) * (z - 0.1) - 2.5 * np.log10(1.1)
    absolute_r = mag_r - 5 * np.log10(np.maximum(distance, 1.0)) - 25 - k_correction
    kpc = half_light_radius_kpc(absolute_r, early, rng)
    # The relation is of Petrosian half-light radii; a de Vaucouleurs profile's own is larger (Graham et al. 2005).
    kpc = kpc * np.where(early, 1 / 0.72, 1.0)
    r50_arcsec = np.degrees(kpc / (1000 * distance / (1 + z) ** 2)) * 3600
    sersic = np.clip(4.0 * np.exp(0.25 * rng.standard_normal(len(z))), 2.0, 6.0)
    bulge = np.clip(0.25 * np.exp(0.8 * rng.standard_normal(len(z))), 0.02, 0.7)
    return Shapes(
        early=early,
        r50_arcsec=np.clip(r50_arcsec, 0.3, 60.0),
        axis_ratio=_axis_ratios(early, rng),
        angle=np.asarray(rng.random(len(z)) * np.pi),
        sersic=np.where(early, np.round(sersic * 4) / 4, np.where(rng.random(len(z)) < 0.5, 2.5, 4.0)),
        bulge=np.where(early, 1.0, bulge),
    )
