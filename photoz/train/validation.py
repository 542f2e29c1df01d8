"""How good a network is on the validation split, after each epoch. Legend: b galaxy, z redshift bin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photoz.metrics import bias, outlier_fraction, scaled_residual, sigma_mad
from photoz.model import pdf as redshift_pdf
from photoz.model.bins import RedshiftBins

Floats = NDArray[np.float64]

OUTLIER = 0.05  # |z_phot - z_spec| / (1 + z_spec), as Pasquet et al. 2019 count them

CRITERION = {"binned": "val_crps", "regression": "val_mae"}  # by the network's head: see Validation.criterion


@dataclass(frozen=True)
class Validation:
    """Metrics in the convention dz = (z_phot - z_spec) / (1 + z_spec). `crps` is None for a regression."""

    loss: float
    mae: float
    crps: float | None
    bias: float
    sigma_mad: float
    outliers: float

    @property
    def criterion(self) -> float:
        """What the kept epoch has least of: CRPS of a PDF, mean absolute error of a regression."""
        return self.mae if self.crps is None else self.crps

    def columns(self) -> dict[str, float | None]:
        """Columns of the history."""
        return {
            "val_loss": self.loss,
            "val_mae": self.mae,
            "val_crps": self.crps,
            "val_bias": self.bias,
            "val_sigma_mad": self.sigma_mad,
            "val_outliers": self.outliers,
        }


def validate(answer: Floats, bins: RedshiftBins, z_spec_b: Floats, loss: float) -> Validation:
    """Score PDFs (b, z), or redshifts (b,), at the true redshifts."""
    if answer.ndim == 2:
        z_phot_b = redshift_pdf.point_estimates(answer, bins.edges).median
        crps: float | None = float(redshift_pdf.crps(answer, bins.edges, z_spec_b).mean())
    else:
        z_phot_b, crps = np.clip(answer, bins.low, bins.high), None
    dz_b = scaled_residual(z_phot_b, z_spec_b)
    return Validation(
        loss=loss,
        mae=float(np.abs(z_phot_b - z_spec_b).mean()),
        crps=crps,
        bias=float(bias(dz_b)),
        sigma_mad=float(sigma_mad(dz_b)),
        outliers=float(outlier_fraction(dz_b, OUTLIER)),
    )
