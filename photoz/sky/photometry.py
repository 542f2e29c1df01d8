"""SDSS photometric system: bands, asinh magnitudes, and conversions with nanomaggies."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BANDS = "ugriz"
MISSING = -9999.0
# Softening parameters b of the asinh magnitudes (Lupton, Gunn & Szalay 1999; SDSS DR17 "flux calibration").
SOFTENING = np.array([1.4e-10, 0.9e-10, 1.2e-10, 1.8e-10, 7.4e-10])
_POGSON = 2.5 / np.log(10.0)
# Sky noise in nanomaggies per native pixel, u to z, as measured on SDSS DR17 frames.
SKY_NOISE_NMGY = np.array([0.045, 0.017, 0.025, 0.042, 0.191])
# Electrons per nanomaggie of a 53.9 s exposure, from typical frame gains and calibrations of DR17.
ELECTRONS_PER_NMGY = np.array([180.0, 950.0, 900.0, 640.0, 110.0])


def asinh_mag(flux_nmgy: npt.ArrayLike) -> Floats:
    """Asinh magnitudes of fluxes in nanomaggies, bands along the last axis; defined for negative flux too."""
    flux = np.asarray(flux_nmgy, float) * 1e-9
    return np.asarray(-_POGSON * (np.arcsinh(flux / (2 * SOFTENING)) + np.log(SOFTENING)))


def asinh_mag_err(flux_nmgy: npt.ArrayLike, flux_err_nmgy: npt.ArrayLike) -> Floats:
    """Error of `asinh_mag` for flux errors in nanomaggies."""
    flux, err = np.asarray(flux_nmgy, float) * 1e-9, np.asarray(flux_err_nmgy, float) * 1e-9
    return np.asarray(_POGSON * err / np.sqrt(flux**2 + 4 * SOFTENING**2))


def pogson_mag(flux_nmgy: npt.ArrayLike) -> Floats:
    """Plain AB magnitudes of positive fluxes in nanomaggies."""
    return np.asarray(22.5 - 2.5 * np.log10(np.maximum(np.asarray(flux_nmgy, float), 1e-4)))


def flux_nmgy(mag: npt.ArrayLike) -> Floats:
    """Nanomaggies of plain AB magnitudes."""
    return np.asarray(10.0 ** (0.4 * (22.5 - np.asarray(mag, float))))
