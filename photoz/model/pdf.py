"""What can be read off a redshift PDF: quantiles, mode, mean, intervals, PIT and CRPS.

A PDF is a probability mass in each bin, spread evenly inside it, so that its CDF is piecewise linear and all
integrals here are exact. Legend: b galaxy, z redshift bin, e = z + 1 bin edges, q quantile.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The share of a normal distribution within 1 and within 2 standard deviations.
WITHIN_1_SIGMA, WITHIN_2_SIGMA = 0.682689, 0.954500
QUANTILES = tuple(0.5 + half * share for share in (WITHIN_2_SIGMA, WITHIN_1_SIGMA) for half in (-0.5, 0.5))


@dataclass(frozen=True)
class PointEstimates:
    """Redshifts read off each PDF, all (b,). The median is the one to quote."""

    median: Floats
    mean: Floats
    mode: Floats
    lo68: Floats
    hi68: Floats
    lo95: Floats
    hi95: Floats


def cdf(pdf_bz: Floats) -> Floats:
    """Cumulative probability at the bin edges, (b, e), from exactly 0 to exactly 1."""
    below_bz = np.cumsum(pdf_bz, axis=1)
    cdf_be = np.zeros((len(pdf_bz), pdf_bz.shape[1] + 1))
    cdf_be[:, 1:] = below_bz / below_bz[:, -1:]
    return cdf_be


def quantiles(cdf_be: Floats, edges_e: Floats, levels_q: Floats) -> Floats:
    """Redshifts (b, q) at which the CDF reaches `levels_q`, linear between edges; never outside of the bins."""
    found_bq = np.empty((len(cdf_be), len(levels_q)))
    rows = np.arange(len(cdf_be))
    for column, level in enumerate(levels_q):
        upper = np.clip((cdf_be < level).sum(axis=1), 1, cdf_be.shape[1] - 1)
        below, above = cdf_be[rows, upper - 1], cdf_be[rows, upper]
        step = np.where(above > below, above - below, 1.0)
        within = np.clip((level - below) / step, 0.0, 1.0)
        found_bq[:, column] = edges_e[upper - 1] + within * (edges_e[upper] - edges_e[upper - 1])
    return found_bq


def point_estimates(pdf_bz: Floats, edges_e: Floats) -> PointEstimates:
    """Median, mean, mode (centre of the densest bin) and the central 68 % and 95 % intervals."""
    centres_z = 0.5 * (edges_e[1:] + edges_e[:-1])
    lo95, hi95, lo68, hi68, median = quantiles(cdf(pdf_bz), edges_e, np.array([*QUANTILES, 0.5])).T
    mean = (pdf_bz @ centres_z) / pdf_bz.sum(axis=1)
    mode = centres_z[np.argmax(pdf_bz / np.diff(edges_e), axis=1)]
    return PointEstimates(median, mean, mode, lo68, hi68, lo95, hi95)


def pit(pdf_bz: Floats, edges_e: Floats, z_spec_b: Floats) -> Floats:
    """The CDF at the true redshift, (b,): uniform between 0 and 1 over many galaxies if PDFs are right."""
    cdf_be = cdf(pdf_bz)
    bin_b, within_b = _locate(edges_e, z_spec_b)
    rows = np.arange(len(pdf_bz))
    below, above = cdf_be[rows, bin_b], cdf_be[rows, bin_b + 1]
    return np.asarray(below + within_b * (above - below))


def crps(pdf_bz: Floats, edges_e: Floats, z_spec_b: Floats) -> Floats:
    """Continuous ranked probability score in redshift, (b,): the integral of (CDF - step at z_spec) squared.

    Gneiting & Raftery 2007, JASA 102, 359. For a point estimate it is |z_phot - z_spec|. Lower is better.
    """
    cdf_be = cdf(pdf_bz)
    width_z = np.diff(edges_e)
    below_bz = _square_integral(cdf_be[:, :-1], cdf_be[:, 1:], width_z)
    above_bz = _square_integral(1.0 - cdf_be[:, :-1], 1.0 - cdf_be[:, 1:], width_z)
    bin_b, within_b = _locate(edges_e, z_spec_b)
    number_z = np.arange(len(width_z))
    score_b = np.where(number_z < bin_b[:, None], below_bz, 0.0).sum(axis=1)
    score_b += np.where(number_z > bin_b[:, None], above_bz, 0.0).sum(axis=1)
    rows = np.arange(len(pdf_bz))
    low, high, width_b = cdf_be[rows, bin_b], cdf_be[rows, bin_b + 1], width_z[bin_b]
    here = low + within_b * (high - low)
    score_b += _square_integral(low, here, width_b * within_b)
    score_b += _square_integral(1.0 - here, 1.0 - high, width_b * (1.0 - within_b))
    outside_b = np.maximum(edges_e[0] - z_spec_b, 0.0) + np.maximum(z_spec_b - edges_e[-1], 0.0)
    return np.asarray(score_b + outside_b)


def _locate(edges_e: Floats, z_b: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The bin of each redshift, clipped to the first and last, and how far into it the redshift lies, 0 to 1."""
    bin_b = np.clip(np.searchsorted(edges_e, z_b, side="right") - 1, 0, len(edges_e) - 2)
    within_b = (z_b - edges_e[bin_b]) / (edges_e[bin_b + 1] - edges_e[bin_b])
    return bin_b, np.clip(within_b, 0.0, 1.0)


def _square_integral(start: Floats, end: Floats, width: Floats) -> Floats:
    """Integral of the square of a line from `start` to `end` over `width`."""
    return np.asarray(width * (start * start + start * end + end * end) / 3.0)
