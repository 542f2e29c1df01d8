"""PDFs for networks that predict one number: the spread of their residuals on the validation split.

Legend: b galaxy, z redshift bin, e bin edge, q quantile.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz.errors import BadFormat
from photoz.model.calibration import FLOOR

Floats = NDArray[np.float64]

QUANTILES = 101


@dataclass(frozen=True)
class ResidualSpread:
    """Quantiles of (z_spec - z) / (1 + z) for network output z, from the smallest to the largest seen."""

    quantiles_q: tuple[float, ...]

    @classmethod
    def of(cls, redshift_b: Floats, z_spec_b: Floats) -> "ResidualSpread":
        """Measure it on galaxies that the network was not trained on."""
        residual_b = (z_spec_b - redshift_b) / (1.0 + redshift_b)
        found_q = np.quantile(residual_b, np.linspace(0.0, 1.0, QUANTILES))
        # A quantile function has to ascend to be turned into a CDF.
        ascending_q = np.maximum.accumulate(found_q) + np.arange(QUANTILES) * 1e-7
        return cls(tuple(map(float, ascending_q)))

    def pdf(self, redshift_b: Floats, edges_e: Floats) -> Floats:
        """PDF of each galaxy, (b, z): the residuals moved to its redshift, cut to the bins."""
        inside_b = np.clip(redshift_b, edges_e[0], edges_e[-1])[:, None]
        levels_q = np.linspace(0.0, 1.0, QUANTILES)
        cdf_be = np.interp((edges_e - inside_b) / (1.0 + inside_b), self.quantiles_q, levels_q)
        mass_bz = np.diff(cdf_be, axis=1) + FLOOR
        return np.asarray(mass_bz / mass_bz.sum(axis=1, keepdims=True))

    def to_json(self) -> dict[str, Any]:
        """The form in which model.json keeps it."""
        return {"quantiles": list(self.quantiles_q)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "ResidualSpread":
        """Read it back."""
        try:
            quantiles_q = tuple(map(float, found["quantiles"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadFormat(f"residuals in model.json: {error}") from None
        if len(quantiles_q) != QUANTILES:
            raise BadFormat(f"residuals in model.json: {len(quantiles_q)} quantiles, expected {QUANTILES}")
        if not np.isfinite(quantiles_q).all():
            raise BadFormat("residuals in model.json: a quantile is NaN or infinite; train the model again")
        return cls(quantiles_q)
