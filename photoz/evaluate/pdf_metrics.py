"""How good redshift PDFs are: PIT, CRPS, CDE loss, and whether the intervals hold what they promise.

A PDF is a probability mass in each of `k` bins with `k + 1` ascending edges, uniform inside a bin, so that the
CDF is piecewise linear and every integral below is exact. Legend: n galaxies, k bins, e = k + 1 bin edges.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photoz.evaluate.metrics import Bootstrap, Estimate, Floats, Metric

PIT_TAIL = 1e-4  # RAIL counts a PIT below this, or above 1 minus this, as an outlier
NOMINAL_COVERAGE = {"68": 0.6827, "95": 0.9545}


def cdf(mass_nk: Floats) -> Floats:
    """Cumulative probability at the bin edges, `(n, e)`, from 0 to 1."""
    below_nk = np.cumsum(mass_nk, axis=1)
    cdf_ne = np.zeros((len(mass_nk), mass_nk.shape[1] + 1))
    cdf_ne[:, 1:] = below_nk / np.where(below_nk[:, -1:] > 0.0, below_nk[:, -1:], 1.0)
    return cdf_ne


def pit(edges_e: Floats, mass_nk: Floats, z_spec_n: Floats) -> Floats:
    """Probability integral transform: the CDF at z_spec; 0 or 1 where z_spec lies outside of the bins."""
    cdf_ne = cdf(mass_nk)
    bin_n, within_n = _locate(edges_e, z_spec_n)
    rows = np.arange(len(z_spec_n))
    low, high = cdf_ne[rows, bin_n], cdf_ne[rows, bin_n + 1]
    return np.asarray(low + (high - low) * within_n)


def crps(edges_e: Floats, mass_nk: Floats, z_spec_n: Floats) -> Floats:
    """Continuous ranked probability score, in redshift: the integral of (CDF(z) - [z >= z_spec])².

    For a point estimate it is |z_phot - z_spec| (Gneiting & Raftery 2007). Outside of the bins the CDF is 0 or 1.
    """
    cdf_ne = cdf(mass_nk)
    width_k = np.diff(edges_e)
    below_nk = _square_integral(cdf_ne[:, :-1], cdf_ne[:, 1:], width_k)
    above_nk = _square_integral(1.0 - cdf_ne[:, :-1], 1.0 - cdf_ne[:, 1:], width_k)
    bin_n, within_n = _locate(edges_e, z_spec_n)
    rows, number_k = np.arange(len(z_spec_n)), np.arange(len(width_k))
    score = np.where(number_k < bin_n[:, None], below_nk, 0.0).sum(axis=1)
    score += np.where(number_k > bin_n[:, None], above_nk, 0.0).sum(axis=1)
    low, high = cdf_ne[rows, bin_n], cdf_ne[rows, bin_n + 1]
    here, width_n = low + (high - low) * within_n, width_k[bin_n]
    score += _square_integral(low, here, width_n * within_n)
    score += _square_integral(1.0 - here, 1.0 - high, width_n * (1.0 - within_n))
    outside = np.maximum(edges_e[0] - z_spec_n, 0.0) + np.maximum(z_spec_n - edges_e[-1], 0.0)
    return np.asarray(score + outside)


def cde_loss(edges_e: Floats, mass_nk: Floats, z_spec_n: Floats) -> Floats:
    """Each galaxy's share of the CDE loss: the integral of p² minus 2 p(z_spec) (Izbicki & Lee 2017).

    Its mean is the L2 distance to the true conditional density, up to a constant: lower is better.
    """
    total_n = mass_nk.sum(axis=1, keepdims=True)
    density_nk = mass_nk / np.where(total_n > 0.0, total_n, 1.0) / np.diff(edges_e)
    bin_n, _ = _locate(edges_e, z_spec_n)
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
    Metric("pit_outlier_rate", ("pit",), pit_outlier_rate),
)
COVERAGE_METRICS = (
    Metric("coverage_68", ("in_68",), _mean),
    Metric("coverage_95", ("in_95",), _mean),
)


@dataclass(frozen=True)
class PdfScores:
    """Per-galaxy scores of PDFs, each `(n,)`."""

    pit: Floats
    crps: Floats
    cde_loss: Floats

    @classmethod
    def of(cls, edges_e: Floats, mass_nk: Floats, z_spec_n: Floats) -> "PdfScores":
        """Score PDFs `(n, k)` at the true redshifts."""
        args = (edges_e, mass_nk, z_spec_n)
        return cls(pit(*args), crps(*args), cde_loss(*args))


def pdf_metrics(columns: Mapping[str, Floats], bootstrap: Bootstrap) -> dict[str, Estimate]:
    """The metrics of PDFs and intervals for which `columns` (pit, crps, cde_loss, in_68, in_95) has what they read."""
    metrics = [metric for metric in (*PDF_METRICS, *COVERAGE_METRICS) if set(metric.columns) <= set(columns)]
    return {metric.name: bootstrap.estimate(metric, columns) for metric in metrics}


def _locate(edges_e: Floats, z_n: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The bin that holds each z, clipped to the first and last, and how far into it z lies, 0 to 1."""
    bin_n = np.clip(np.searchsorted(edges_e, z_n, side="right") - 1, 0, len(edges_e) - 2)
    within_n = (z_n - edges_e[bin_n]) / (edges_e[bin_n + 1] - edges_e[bin_n])
    return bin_n, np.clip(within_n, 0.0, 1.0)


def _square_integral(start: Floats, end: Floats, width: Floats) -> Floats:
    """Integral of the square of a line that goes from `start` to `end` over `width`."""
    return np.asarray(width * (start * start + start * end + end * end) / 3.0)
