"""The embedded survey's own photometric redshifts: local linear regression, as for SDSS (Beck et al. 2016)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Floats = npt.NDArray[np.float64]

NEIGHBOURS = 100
_BATCH = 20_000  # keeps the neighbours' matrices below 100 MB


@dataclass(frozen=True)
class PhotozEstimates:
    """z, its error, the mean redshift and number of the neighbours used, and the distance to the farthest."""

    z: Floats
    z_err: Floats
    neighbour_z: Floats
    neighbours: npt.NDArray[np.int64]
    radius: Floats


def _features(mags: Floats) -> Floats:
    """r magnitude and the four colours; the magnitude weighs less, as it says less of the redshift."""
    colours = -np.diff(mags, axis=1)
    return np.column_stack([0.3 * mags[:, 2], colours])


def estimate(mags: Floats, train_mags: Floats, train_z: Floats, own: npt.NDArray[np.int64]) -> PhotozEstimates:
    """Redshifts of galaxies with dereddened ugriz `mags` (n, 5) from the training galaxies' redshifts.

    `own` (n,) is each galaxy's row in the training set, or -1. That row is left out of its own neighbours, so no
    redshift enters its own estimate. A plane is fitted to the neighbours, and again without 3 sigma outliers.
    """
    tree = cKDTree(_features(train_mags))
    parts = [
        _estimate_batch(_features(mags[at : at + _BATCH]), tree, train_z, own[at : at + _BATCH])
        for at in range(0, len(mags), _BATCH)
    ]
    return PhotozEstimates(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _estimate_batch(
    features_nd: Floats, tree: cKDTree, train_z: Floats, own: npt.NDArray[np.int64]
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.int64], Floats]:
    """Fields of PhotozEstimates, in order, for one batch."""
    distance, index = tree.query(features_nd, k=NEIGHBOURS + 1)
    # Drop the galaxy itself where it is among its neighbours, else the farthest.
    mine = index == own[:, None]
    mine[~mine.any(axis=1), -1] = True
    index = index[~mine].reshape(len(features_nd), NEIGHBOURS)
    offsets_nkd = tree.data[index] - features_nd[:, None, :]
    design_nkd = np.concatenate([np.ones((*index.shape, 1)), offsets_nkd], axis=2)
    z_nk = train_z[index]
    weight_nk = np.ones_like(z_nk)
    for _ in range(2):
        plane_nd = _fit_planes(design_nkd, z_nk, weight_nk)
        residual_nk = z_nk - (design_nkd @ plane_nd[:, :, None])[:, :, 0]
        scatter_n = np.sqrt((weight_nk * residual_nk**2).sum(axis=1) / weight_nk.sum(axis=1))
        weight_nk = (np.abs(residual_nk) <= 3 * scatter_n[:, None]).astype(float)
    used_n = weight_nk.sum(axis=1).astype(np.int64)
    return np.clip(plane_nd[:, 0], 0.0, 1.0), scatter_n, z_nk.mean(axis=1), used_n, distance[:, -1]


def _fit_planes(design_nkd: Floats, z_nk: Floats, weight_nk: Floats) -> Floats:
    weighted_ndk = (design_nkd * weight_nk[:, :, None]).transpose(0, 2, 1)
    normal_ndd = weighted_ndk @ design_nkd + 1e-6 * np.eye(design_nkd.shape[2])
    return np.asarray(np.linalg.solve(normal_ndd, weighted_ndk @ z_nk[:, :, None])[..., 0])
