"""More galaxies than the real ones, for tests of scale: real SEDs moved in redshift, at new places."""

import numpy as np
import numpy.typing as npt

from photoz.sky.galaxies import GALAXY, SkyObjects, scatter_positions
from photoz.sky.morphology import luminosity_distance_mpc
from photoz.sky.photometry import pogson_mag

Floats = npt.NDArray[np.float64]

_RESPONSES = [f"sdss_{band}0" for band in "ugriz"]
_FAINT_LIMIT_R = 17.77
_REDSHIFT_RANGE = (0.01, 0.62)
_BATCH = 100_000


def moved_galaxies(real: SkyObjects, count: int, rng: np.random.Generator) -> SkyObjects:
    """`count` galaxies, each a real one's fitted SED at up to some 15 % more or less redshift, within 1 deg of it.

    Fluxes follow kcorrect's templates (Blanton & Roweis 2007) from the old redshift to the new; what the fit leaves
    of each real flux is kept as a factor, so real colours keep their scatter. None ends fainter than r = 17.77
    unless its template is.
    """
    model = _SpectralModel(real)
    template = rng.integers(len(real), size=count)
    z = _new_redshifts(real, template, rng)
    ratio = np.concatenate(
        [model.flux_ratio(template[at : at + _BATCH], z[at : at + _BATCH]) for at in range(0, count, _BATCH)]
    )
    ra, dec = scatter_positions(real.ra[template], real.dec[template], 1.0, rng)
    return SkyObjects(
        ra=ra,
        dec=dec,
        z=z,
        flux=real.flux[template] * ratio,
        flux_err=real.flux_err[template] * np.sqrt(ratio),
        petro_flux=real.petro_flux[template] * ratio,
        petro_flux_err=real.petro_flux_err[template] * np.sqrt(ratio),
        extinction=real.extinction[template],
        kind=np.full(count, GALAXY),
        template=template,
        real=np.zeros(count, bool),
    )


def _new_redshifts(real: SkyObjects, template: npt.NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Redshifts near the templates', nearer where farther would take a galaxy beyond the survey's limit."""
    z = real.z[template]
    step = 0.15 * rng.standard_normal(len(template))
    room = 0.2 * np.log(10) * (_FAINT_LIMIT_R - pogson_mag(real.petro_flux[template, 2]) + real.extinction[template, 2])
    step = np.where(step > room, -np.abs(step), step)
    return np.asarray(np.clip(z * np.exp(step), *_REDSHIFT_RANGE))


class _SpectralModel:
    """Template fits of the real galaxies, on a redshift grid coarse enough to load in seconds."""

    def __init__(self, real: SkyObjects) -> None:
        from kcorrect.kcorrect import Kcorrect  # seconds to load, and only needed here

        self._z = real.z
        self._fit = Kcorrect(responses=_RESPONSES, redshift_range=[0.0, 0.7], nredshift=141)
        transparent = 10 ** (0.4 * real.extinction)
        maggies = (real.flux * transparent * 1e-9).astype(np.float32)
        ivar = ((real.flux_err * transparent * 1e-9) ** -2.0).astype(np.float32)
        self._coeffs = self._fit.fit_coeffs(redshift=real.z.astype(np.float32), maggies=maggies, ivar=ivar)
        self._now = self._model(real.z, self._coeffs)

    def _model(self, z: Floats, coeffs: npt.NDArray[np.float32]) -> Floats:
        return np.asarray(self._fit.reconstruct(redshift=z.astype(np.float32), coeffs=coeffs), float)

    def flux_ratio(self, template: npt.NDArray[np.int64], z: Floats) -> Floats:
        """Flux at the new redshift over flux at the old, shape (n, 5); a galaxy without a fit only dims."""
        now, moved = self._now[template], self._model(z, self._coeffs[template])
        colour = np.where((now > 0) & (moved > 0), moved / np.where(now > 0, now, 1.0), 1.0)
        dimming = (luminosity_distance_mpc(self._z[template]) / luminosity_distance_mpc(z)) ** 2
        return np.asarray(colour * dimming[:, None])
