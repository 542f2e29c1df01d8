"""How unlike the training images an image is, as the network sees it: a Mahalanobis distance.

Lee et al. 2018 (arXiv 1807.03888) with one class. Legend: b image, f feature.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from photoz.errors import BadInput

Floats = NDArray[np.float64]

SHRINKAGE = 0.05  # of the covariance towards its diagonal, so that few images still give an invertible one
REFERENCE_PERCENTILE = 99.0


@dataclass(frozen=True)
class Familiarity:
    """Mean and whitening matrix of training features; `reference` is the distance that 1 % of validation exceeds."""

    mean_f: Floats
    whiten_ff: Floats
    reference: float = 1.0

    @classmethod
    def of(cls, train_bf: Floats, val_bf: Floats) -> "Familiarity":
        """Measure it: the shape of the cloud on the training split, the scale of distances on the validation split.

        Raises BadInput for features that are all alike, or not finite.
        """
        # One thread: sums shared among threads round differently, and the same features must give the same bytes.
        with threadpool_limits(1, user_api="blas"):
            return cls._of(train_bf, val_bf)

    @classmethod
    def _of(cls, train_bf: Floats, val_bf: Floats) -> "Familiarity":
        mean_f = train_bf.mean(axis=0)
        covariance_ff = np.cov(train_bf, rowvar=False).reshape(len(mean_f), len(mean_f))
        variance_f = np.diag(covariance_ff) + 1e-6
        shrunk_ff = (1.0 - SHRINKAGE) * covariance_ff + SHRINKAGE * np.diag(variance_f) + 1e-6 * np.eye(len(mean_f))
        values_f, vectors_ff = np.linalg.eigh(shrunk_ff)
        whiten_ff = vectors_ff / np.sqrt(np.maximum(values_f, 1e-6))
        distance_b = cls(mean_f, whiten_ff)._distance(val_bf)
        reference = float(np.percentile(distance_b, REFERENCE_PERCENTILE))
        if not 0 < reference < np.inf:
            raise BadInput(
                f"validation galaxies are {reference} away from training galaxies, as the network sees them: expected "
                "a number above 0; it tells no galaxy from another, so look for extreme pixels, or train longer"
            )
        return cls(mean_f, whiten_ff, reference)

    def score(self, features_bf: Floats) -> Floats:
        """Distance from the training images, (b,); 1 is what only 1 in 100 validation galaxies exceeds."""
        return self._distance(features_bf) / self.reference

    def _distance(self, features_bf: Floats) -> Floats:
        return np.asarray(np.linalg.norm((features_bf - self.mean_f) @ self.whiten_ff, axis=1))
