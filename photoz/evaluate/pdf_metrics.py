"""How good redshift PDFs are: PIT, CRPS, CDE loss, and whether the intervals hold what they promise.

PIT and CRPS of a single PDF are in photoz.model.pdf. Legend: n galaxies, k bins, e = k + 1 bin edges.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from photoz.evaluate.metrics import Bootstrap, Estimate, Floats, Metric
from photoz.model.pdf import crps, pit

PIT_TAIL = 1e-4  # RAIL counts a PIT below this, or above 1 minus this, as an outlier


def cde_loss(mass_nk: Floats, edges_e: Floats, z_spec_n: Floats) -> Floats:
    """Each galaxy's share of the CDE loss: the integral of p² minus 2 p(z_spec) (Izbicki & Lee 2017).

    Its mean is the L2 distance to the true conditional density, up to a constant: lower is better.
    """
    total_n = mass_nk.sum(axis=1, keepdims=True)
    density_nk = mass_nk / np.where(total_n > 0.0, total_n, 1.0) / np.diff(edges_e)
    bin_n = np.clip(np.searchsorted(edges_e, z_spec_n, side="right") - 1, 0, len(edges_e) - 2)
    inside = (z_spec_n >= edges_e[0]) & (z_spec_n <= edges_e[-1])
    at_truth = np.where(inside, density_nk[np.arange(len(z_spec_n)), bin_n], 0.0)
    return np.asarray((np.square(density_nk) * np.diff(edges_e)).sum(axis=1) - 2.0 * at_truth)


def ks_distance(pit_n: Floats) -> Floats:
    """Largest distance between the PITs' empirical CDF and the uniform one (Kolmogorov and Smirnov)."""
    ordered = np.sort(pit_n, axis=-1)
    n = ordered.shape[-1]
    above = np.arange(1, n + 1) / n - ordered
    below = ordered - np.arange(n) / n
    return np.asarray(np.maximum(above, below).max(axis=-1))


def pit_outlier_rate(pit_n: Floats) -> Floats:
    """Share of PITs below 1e-4 or above 1 - 1e-4: truths that the PDF held to be impossible (RAIL)."""
    return np.asarray(((pit_n < PIT_TAIL) | (pit_n > 1.0 - PIT_TAIL)).mean(axis=-1))


def _mean(values: Floats) -> Floats:
    return np.asarray(values.mean(axis=-1))


PDF_METRICS = (
    Metric("crps", ("crps",), _mean),
    Metric("cde_loss", ("cde_loss",), _mean),
    Metric("pit_ks", ("pit",), ks_distance),
    Metric("pit_outlier_rate", ("pit",), pit_outlier_rate, share=True),
)
COVERAGE_METRICS = (
    Metric("coverage_68", ("in_68",), _mean, share=True),
    Metric("coverage_95", ("in_95",), _mean, share=True),
)


@dataclass(frozen=True)
class PdfScores:
    """Per-galaxy scores of PDFs, each `(n,)`."""

    pit: Floats
    crps: Floats
    cde_loss: Floats

    @classmethod
    def of(cls, mass_nk: Floats, edges_e: Floats, z_spec_n: Floats) -> "PdfScores":
        """Score PDFs `(n, k)` at the true redshifts."""
        args = (mass_nk, edges_e, z_spec_n)
        return cls(pit(*args), crps(*args), cde_loss(*args))


def pdf_metrics(columns: Mapping[str, Floats], bootstrap: Bootstrap) -> dict[str, Estimate]:
    """The metrics of PDFs and intervals for which `columns` (pit, crps, cde_loss, in_68, in_95) has what they read."""
    metrics = [metric for metric in (*PDF_METRICS, *COVERAGE_METRICS) if set(metric.columns) <= set(columns)]
    return {metric.name: bootstrap.estimate(metric, columns) for metric in metrics}
