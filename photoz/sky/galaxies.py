"""The real galaxies of the embedded sky, and rows drawn from them to fill the survey around them."""

from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from photoz.errors import BadInput
from photoz.sky.photometry import asinh_mag, flux_nmgy
from photoz.sky.stripes import unit_vectors

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GALAXY, STAR, QSO = 0, 1, 2


@dataclass(frozen=True)
class SkyObjects:
    """Measured objects, arrays of length n (fluxes n x 5: u g r i z, nanomaggies, as observed, not dereddened).

    `template` is the row of the real galaxy that an object was drawn from; `real` marks the real ones.
    """

    ra: Floats
    dec: Floats
    z: Floats
    flux: Floats
    flux_err: Floats
    petro_flux: Floats
    petro_flux_err: Floats
    extinction: Floats
    kind: Ints
    template: Ints
    real: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ra)

    def dereddened_mags(self) -> Floats:
        """Dereddened asinh model magnitudes, shape (n, 5)."""
        return asinh_mag(self.flux) - self.extinction

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "SkyObjects":
        """The objects of these rows."""
        return SkyObjects(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def concatenate(parts: list[SkyObjects]) -> SkyObjects:
    """All objects of several sets, in order."""
    return SkyObjects(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(SkyObjects)}
    )


def real_galaxies() -> SkyObjects:
    """The 10,000 SDSS galaxies that ship with kcorrect: positions, redshifts, fluxes and errors, extinction."""
    package = find_spec("kcorrect")  # only its data are wanted; its modules load in seconds
    if package is None or package.origin is None:
        raise BadInput(
            "the package kcorrect is not installed, and the embedded sky's galaxies come with it; install it"
        )
    path = Path(package.origin).parent / "data" / "test" / "gst_tests_small.fits"
    rows = fits.getdata(path, 1)
    count = len(rows)

    def column(name: str) -> Floats:
        return np.asarray(rows[name], np.float64)

    return SkyObjects(
        ra=column("RA"),
        dec=column("DEC"),
        z=column("Z"),
        flux=column("MODELFLUX"),
        flux_err=1 / np.sqrt(column("MODELFLUX_IVAR")),
        petro_flux=column("PETROFLUX"),
        petro_flux_err=1 / np.sqrt(column("PETROFLUX_IVAR")),
        extinction=column("EXTINCTION"),
        kind=np.full(count, GALAXY),
        template=np.arange(count),
        real=np.ones(count, bool),
    )


def scatter_positions(ra: Floats, dec: Floats, radius_deg: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Positions within a radius of the given ones, uniform in area."""
    count = len(ra)
    distance = np.radians(radius_deg) * np.sqrt(rng.random(count))
    bearing = 2 * np.pi * rng.random(count)
    centre = unit_vectors(ra, dec)
    east = np.column_stack([-np.sin(np.radians(ra)), np.cos(np.radians(ra)), np.zeros(count)])
    north = np.cross(centre, east)
    moved = centre * np.cos(distance)[:, None] + np.sin(distance)[:, None] * (
        east * np.sin(bearing)[:, None] + north * np.cos(bearing)[:, None]
    )
    return np.degrees(np.arctan2(moved[:, 1], moved[:, 0])) % 360.0, np.degrees(np.arcsin(np.clip(moved[:, 2], -1, 1)))


def more_galaxies(real: SkyObjects, count: int, rng: np.random.Generator) -> SkyObjects:
    """Galaxies like real ones elsewhere on the sky: the same redshift and fluxes, re-measured with their errors."""
    template = rng.integers(len(real), size=count)
    source = real.take(template)
    ra, dec = scatter_positions(source.ra, source.dec, 1.0, rng)
    noise = rng.standard_normal(source.flux.shape)
    return SkyObjects(
        ra=ra,
        dec=dec,
        z=source.z,
        flux=source.flux + noise * source.flux_err,
        flux_err=source.flux_err,
        petro_flux=source.petro_flux + noise * source.petro_flux_err,
        petro_flux_err=source.petro_flux_err,
        extinction=source.extinction,
        kind=np.full(count, GALAXY),
        template=template,
        real=np.zeros(count, bool),
    )


def point_sources(real: SkyObjects, kind: int, count: int, rng: np.random.Generator) -> SkyObjects:
    """Stars (on the stellar locus) or quasars (blue, z 0.4 to 2.8) that were observed beside the galaxies."""
    template = rng.integers(len(real), size=count)
    source = real.take(template)
    ra, dec = scatter_positions(source.ra, source.dec, 1.0, rng)
    mag_r = 15.0 + 4.0 * np.sqrt(rng.random(count))
    if kind == STAR:
        g_r = np.where(rng.random(count) < 0.6, 0.2 + 0.5 * rng.random(count), 0.5 + 0.95 * rng.random(count))
        colours = np.column_stack([0.9 + 1.1 * g_r, g_r, 0.04 + 0.36 * g_r**1.5, 0.02 + 0.2 * g_r**1.5])
        z = rng.normal(0.0, 2e-4, count)
    else:
        colours = rng.normal([0.25, 0.2, 0.12, 0.08], [0.25, 0.18, 0.15, 0.12], (count, 4))
        z = 0.4 + 2.4 * rng.random(count)
    u_minus_r, g_minus_r = colours[:, 0] + colours[:, 1], colours[:, 1]
    r_minus_i, r_minus_z = colours[:, 2], colours[:, 2] + colours[:, 3]
    offsets = np.column_stack([u_minus_r, g_minus_r, np.zeros(count), -r_minus_i, -r_minus_z])
    flux = flux_nmgy(mag_r[:, None] + offsets + source.extinction)
    flux_err = np.sqrt((0.01 * flux) ** 2 + np.array([0.35, 0.1, 0.15, 0.25, 1.0]) ** 2)
    return SkyObjects(
        ra=ra,
        dec=dec,
        z=z,
        flux=flux,
        flux_err=flux_err,
        petro_flux=flux,
        petro_flux_err=2 * flux_err,
        extinction=source.extinction,
        kind=np.full(count, kind),
        template=template,
        real=np.zeros(count, bool),
    )
