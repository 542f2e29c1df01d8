"""Point metrics of redshifts, one definition each. Every one reduces the last axis: (n,) or (b, n) resamples."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIGMA_OF_MAD = 1.4826
"""A Gaussian's standard deviation in units of its median absolute deviation."""


def scaled_residual(z_phot: Floats, z_spec: Floats) -> Floats:
    """dz = (z_phot - z_spec) / (1 + z_spec)."""
    return (z_phot - z_spec) / (1.0 + z_spec)


def bias(dz: Floats) -> Floats:
    """Mean dz, the bias of the CNN papers (Pasquet et al. 2019)."""
    return np.asarray(dz.mean(axis=-1))


def sigma_mad(dz: Floats) -> Floats:
    """1.4826 median |dz - median dz|: the scatter of the CNN papers; a Gaussian's sigma for Gaussian dz."""
    return np.asarray(SIGMA_OF_MAD * np.median(np.abs(dz - np.median(dz, axis=-1, keepdims=True)), axis=-1))


def outlier_fraction(dz: Floats, cut: float = 0.05) -> Floats:
    """Share of galaxies with |dz| > cut."""
    return np.asarray((np.abs(dz) > cut).mean(axis=-1))


def median_bias(dz: Floats) -> Floats:
    """Median dz, RAIL's PointBias."""
    return np.asarray(np.median(dz, axis=-1))


def sigma_iqr(dz: Floats) -> Floats:
    """Interquartile range / 1.349, RAIL's PointSigmaIQR."""
    low, high = np.percentile(dz, [25.0, 75.0], axis=-1)
    return np.asarray((high - low) / 1.349)
