"""Calibration of PDFs on the validation split, so that "68 %" means 68 %. Both maps are monotone.

First a temperature (the PDF to the power 1/T: Guo et al. 2017, arXiv 1706.04599), chosen by the mean log density at
the truth. Then the CDF goes through that of a symmetric beta distribution, which widens or narrows PDFs until PITs are
as uniform as may be (Kuleshov et al. 2018, arXiv 1807.00263, with one parameter) and leaves their medians alone.
Legend: b galaxy, z redshift bin, e bin edge.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaln

from photoz.errors import BadFormat
from photoz.model import pdf as redshift_pdf

Floats = NDArray[np.float64]

FLOOR = 1e-9  # of a bin's mass: no redshift in range is impossible
# So many imagined galaxies with uniform PITs, and at temperature 1, keep a small validation split from deciding much.
PRIOR_GALAXIES = 40.0
TEMPERATURES = (0.2, 8.0)
_NODES = 8193
_PIT_MARGIN = 1e-3  # truths beyond a PDF's tails say little about its shape


@dataclass(frozen=True)
class Calibration:
    """`temperature`, and the beta distribution's parameter: above 1 narrows. Both 1 changes nothing."""

    temperature: float = 1.0
    beta: float = 1.0

    def apply(self, pdf_bz: Floats) -> Floats:
        """Calibrated PDFs, (b, z), each summing to 1."""
        warmed_bz = _warmed(pdf_bz, self.temperature)
        return np.diff(_beta_cdf(self.beta, redshift_pdf.cdf(warmed_bz)), axis=1)

    def to_json(self) -> dict[str, Any]:
        """The form in which model.json keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Calibration":
        """Read it back."""
        try:
            read = cls(*(float(found[name]) for name in ("temperature", "beta")))
        except (KeyError, TypeError, ValueError) as error:
            raise BadFormat(f"calibration in model.json: {error}") from None
        if not all(0 < value < math.inf for value in (read.temperature, read.beta)):
            raise BadFormat(f"calibration in model.json: {read}, expected numbers above 0; train the model again")
        return read


def _beta_cdf(beta: float, x: Floats) -> Floats:
    """CDF of the symmetric beta distribution, to 1e-7: for narrowing ones, which are smooth, it is read off a table."""
    return np.asarray(np.interp(x, *_table(beta)) if beta >= 1 else betainc(beta, beta, x))


@lru_cache(maxsize=8)
def _table(beta: float) -> tuple[Floats, Floats]:
    nodes = np.sin(np.linspace(0.0, np.pi / 2, _NODES)) ** 2  # denser towards both ends
    return nodes, betainc(beta, beta, nodes)


def fit_calibration(pdf_bz: Floats, edges_e: Floats, z_spec_b: Floats) -> Calibration:
    """Fit both maps to galaxies with known redshifts that the network was not trained on."""
    temperature = _fit_temperature(pdf_bz, edges_e, z_spec_b)
    pit_b = redshift_pdf.pit(_warmed(pdf_bz, temperature), edges_e, z_spec_b)
    beta = _fit_beta(np.clip(pit_b, _PIT_MARGIN, 1.0 - _PIT_MARGIN))
    return Calibration(temperature, beta)


def _warmed(pdf_bz: Floats, temperature: float) -> Floats:
    powered_bz = np.maximum(pdf_bz, FLOOR) ** (1.0 / temperature)
    return np.asarray(powered_bz / powered_bz.sum(axis=1, keepdims=True))


def _fit_temperature(pdf_bz: Floats, edges_e: Floats, z_spec_b: Floats) -> float:
    bin_b = np.clip(np.searchsorted(edges_e, z_spec_b, side="right") - 1, 0, pdf_bz.shape[1] - 1)
    rows = np.arange(len(pdf_bz))

    def loss(log_temperature: float) -> float:
        density_b = _warmed(pdf_bz, float(np.exp(log_temperature)))[rows, bin_b]
        return float(-np.log(density_b).sum() + 0.5 * PRIOR_GALAXIES * log_temperature**2)

    low, high = np.log(TEMPERATURES)
    return float(np.exp(_argmin(loss, low, high)))


def _fit_beta(pit_b: Floats) -> float:
    """Most likely symmetric beta distribution of the PITs, pulled towards the uniform one."""
    # The mean of log u + log(1 - u) over a uniform u is -2.
    logs = np.log(pit_b).sum() + np.log1p(-pit_b).sum() - 2.0 * PRIOR_GALAXIES
    mean = float(logs) / (len(pit_b) + PRIOR_GALAXIES)

    def loss(log_beta: float) -> float:
        beta = np.exp(log_beta)
        return float(betaln(beta, beta) - (beta - 1.0) * mean)

    return float(np.exp(_argmin(loss, -1.5, 1.5)))


def _argmin(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where between these it is least."""
    from scipy.optimize import minimize_scalar  # takes 0.4 s to import, and inference does without

    return float(minimize_scalar(loss, bounds=(low, high), method="bounded").x)
