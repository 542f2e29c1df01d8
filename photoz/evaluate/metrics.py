"""How good point redshifts are, in the two conventions that papers use, with bootstrap errors.

Every metric reduces the last axis, so the same function scores one sample `(n,)` or many resamples `(b, n)`.
Legend: n galaxies, b bootstrap resamples.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photoz.metrics import bias, median_bias, outlier_fraction, scaled_residual, sigma_iqr, sigma_mad

Floats = NDArray[np.float64]

MIN_FOR_ERROR = 10  # fewer galaxies give no bootstrap error worth printing
_CHUNK_VALUES = 1_000_000  # resampled values held at once
_RESAMPLED_VALUES = 5_000_000  # of one metric: a second or so of work
_FEWEST_RESAMPLES = 50
MOST_RESAMPLED = 100_000  # galaxies in one resample
OUTLIER_CUTS = (0.05, 0.15)


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its bootstrap standard error; `reason` says why one of them is missing."""

    value: float | None
    error: float | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, float | str | None]:
        """Plain values for metrics.json, rounded to 6 significant digits."""
        out: dict[str, float | str | None] = {"value": _rounded(self.value), "error": _rounded(self.error)}
        return out | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True)
class Metric:
    """One number read off per-galaxy columns.

    `columns` name the arrays that `of` takes; `needs` is the fewest galaxies for which it means anything; `share`
    marks the share of galaxies that do something.
    """

    name: str
    columns: tuple[str, ...]
    of: Callable[..., Floats]
    needs: int = 1
    share: bool = False


def rail_outlier_fraction(dz: Floats) -> Floats:
    """Share of |dz| > max(0.06, 3 sigma_iqr), RAIL's PointOutlierRate."""
    cut = np.maximum(0.06, 3.0 * sigma_iqr(dz))
    return np.asarray((np.abs(dz) > cut[..., None]).mean(axis=-1))


def r2(z_phot: Floats, z_spec: Floats) -> Floats:
    """1 - residual variance / variance of z_spec; NaN where z_spec does not vary."""
    spread = np.square(z_spec - z_spec.mean(axis=-1, keepdims=True)).sum(axis=-1)
    missed = np.square(z_phot - z_spec).sum(axis=-1)
    varies = spread > 1e-20
    return np.asarray(np.where(varies, 1.0 - missed / np.where(varies, spread, 1.0), np.nan))


def r2_log(z_phot: Floats, z_spec: Floats) -> Floats:
    """R² of log(1+z), the fair one where redshifts reach beyond 1; z_phot below -0.99 counts as -0.99."""
    return r2(np.log1p(np.maximum(z_phot, -0.99)), np.log1p(z_spec))


def mae(z_phot: Floats, z_spec: Floats) -> Floats:
    """Mean |z_phot - z_spec|."""
    return np.asarray(np.abs(z_phot - z_spec).mean(axis=-1))


def rmse(z_phot: Floats, z_spec: Floats) -> Floats:
    """Root mean square of z_phot - z_spec."""
    return np.asarray(np.sqrt(np.square(z_phot - z_spec).mean(axis=-1)))


CNN_METRICS = (
    Metric("bias", ("dz",), bias),
    Metric("sigma_mad", ("dz",), sigma_mad, needs=2),
    Metric("outlier_fraction_0.05", ("dz",), lambda dz: outlier_fraction(dz, 0.05), share=True),
    Metric("outlier_fraction_0.15", ("dz",), lambda dz: outlier_fraction(dz, 0.15), share=True),
)
RAIL_METRICS = (
    Metric("median_bias", ("dz",), median_bias),
    Metric("sigma_iqr", ("dz",), sigma_iqr, needs=2),
    Metric("outlier_fraction", ("dz",), rail_outlier_fraction, needs=2, share=True),
)
GENERAL_METRICS = (
    Metric("r2", ("z_phot", "z_spec"), r2, needs=2),
    Metric("r2_log1pz", ("z_phot", "z_spec"), r2_log, needs=2),
    Metric("mae", ("z_phot", "z_spec"), mae),
    Metric("rmse", ("z_phot", "z_spec"), rmse),
)
CONVENTIONS: Mapping[str, tuple[Metric, ...]] = {"cnn": CNN_METRICS, "rail": RAIL_METRICS, "general": GENERAL_METRICS}


@dataclass(frozen=True)
class Bootstrap:
    """Resampling of galaxies with replacement: the same draws for every estimator of `n` galaxies.

    Equal draws make ratios of two estimators on the same galaxies paired, so their errors are right. Of more than
    100,000 galaxies each resample holds so many, and errors are scaled by sqrt(100,000 / n): the m out of n bootstrap
    (Bickel, Goetze & van Zwet 1997).
    """

    samples: int = 200
    seed: int = 0

    def samples_of(self, n: int) -> int:
        """Resamples taken of `n` galaxies: fewer, but 50 at least, where the errors of many galaxies are small."""
        return min(self.samples, max(_FEWEST_RESAMPLES, _RESAMPLED_VALUES // max(n, 1)))

    def draws(self, n: int) -> Iterator[NDArray[np.intp]]:
        """Row numbers `(b, m)`, m the smaller of n and 100,000, in chunks of resamples."""
        rng = np.random.default_rng((self.seed, n))
        size = min(n, MOST_RESAMPLED)
        step = max(1, _CHUNK_VALUES // max(size, 1))
        wanted = self.samples_of(n)
        for first in range(0, wanted, step):
            yield rng.integers(0, n, size=(min(step, wanted - first), size))

    def resampled(self, metric: Metric, columns: Mapping[str, Floats]) -> Floats:
        """The metric on each resample `(b,)`."""
        arrays = [columns[name] for name in metric.columns]
        parts = [metric.of(*(array[rows] for array in arrays)) for rows in self.draws(len(arrays[0]))]
        return np.concatenate(parts)

    def estimate(self, metric: Metric, columns: Mapping[str, Floats]) -> Estimate:
        """The metric and its standard error; a missing one comes with the reason."""
        arrays = [columns[name] for name in metric.columns]
        n = len(arrays[0])
        if n < metric.needs:
            return Estimate(None, reason=f"needs {metric.needs} galaxies or more, has {n}")
        value = float(metric.of(*arrays))
        if not np.isfinite(value):
            return Estimate(None, reason="not defined here: all redshifts are the same")
        if n < MIN_FOR_ERROR:
            return Estimate(value, reason=f"no error from fewer than {MIN_FOR_ERROR} galaxies")
        if metric.share and value in (0.0, 1.0):
            # Resampling can't see what has not happened once; the rule of three can.
            limit = f"below {300 / n:.2g} %" if value == 0.0 else f"above {100 - 300 / n:.3g} %"
            return Estimate(value, reason=f"{limit} with 95 % confidence")
        return Estimate(value, _error(self.resampled(metric, columns), n))

    def ratio(self, metric: Metric, mine: Mapping[str, Floats], theirs: Mapping[str, Floats]) -> Estimate:
        """The metric on `mine` over that on `theirs`, the same galaxies in the same order."""
        top, bottom = self.estimate(metric, mine), self.estimate(metric, theirs)
        if top.value is None or bottom.value is None:
            return Estimate(None, reason=top.reason or bottom.reason)
        if bottom.value == 0.0:
            return Estimate(None, reason="not defined here: the other's is exactly 0")
        value = top.value / bottom.value
        if top.error is None:
            return Estimate(value, reason=top.reason)
        above, below = self.resampled(metric, mine), self.resampled(metric, theirs)
        usable = np.isfinite(below) & (below > 0.0)
        return Estimate(value, _error(above[usable] / below[usable], len(next(iter(mine.values())))))


def point_columns(z_phot: Floats, z_spec: Floats) -> dict[str, Floats]:
    """The per-galaxy columns that the point metrics read."""
    z_phot, z_spec = np.asarray(z_phot, float), np.asarray(z_spec, float)
    return {"z_phot": z_phot, "z_spec": z_spec, "dz": scaled_residual(z_phot, z_spec)}


def point_metrics(z_phot: Floats, z_spec: Floats, bootstrap: Bootstrap) -> dict[str, dict[str, Estimate]]:
    """All point metrics by convention: {"cnn": {"bias": …}, "rail": {…}, "general": {…}}."""
    columns = point_columns(z_phot, z_spec)
    return {
        convention: {metric.name: bootstrap.estimate(metric, columns) for metric in metrics}
        for convention, metrics in CONVENTIONS.items()
    }


@dataclass(frozen=True)
class Running:
    """Median and robust scatter of dz in bins of equal counts; each `(m,)`."""

    centre: Floats
    median: Floats
    sigma: Floats
    count: NDArray[np.int64]


def running(x: Floats, dz: Floats, at_least: int = 25, bins: int = 14) -> Running:
    """Bins of equal counts along x, of `at_least` galaxies each, `bins` of them at most."""
    finite = np.isfinite(x) & np.isfinite(dz)
    x, dz = x[finite], dz[finite]
    pieces = np.array_split(np.argsort(x, kind="stable"), max(1, min(bins, len(x) // at_least)))
    pieces = [rows for rows in pieces if len(rows) >= 5]
    return Running(
        np.array([np.median(x[rows]) for rows in pieces]),
        np.array([np.median(dz[rows]) for rows in pieces]),
        np.array([float(sigma_mad(dz[rows])) for rows in pieces]),
        np.array([len(rows) for rows in pieces], np.int64),
    )


def _error(resampled: Floats, n: int) -> float | None:
    """Standard error of a metric of n galaxies from its values on resamples."""
    finite = resampled[np.isfinite(resampled)]
    return float(finite.std(ddof=1)) * min(1.0, MOST_RESAMPLED / n) ** 0.5 if finite.size > 1 else None


def _rounded(value: float | None) -> float | None:
    # 6 significant digits: beyond them lies summation order, which differs between processors.
    return None if value is None else float(f"{value:.6g}")
