"""Estimators that a network has to beat, trained on its training galaxies and scored on the same test galaxies.

Trees and nearest neighbours on catalogue magnitudes (the g, r, i that a JPEG holds, and all bands), trees on the
colours of the stamps, and the mean redshift of the training galaxies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from photoz.bands import RGB
from photoz.evaluate.metrics import Floats
from photoz.runtime import usable_cores

MIN_TRAIN = 20  # fewer galaxies than this train nothing
MAX_TRAIN = 200_000  # catalogue rows come in random order, so the first ones are a fair sample
JPEG_BANDS = tuple(f"mag_{band}" for band in reversed(RGB))
_THREADS_FROM = 50_000
_QUERIED_AT_ONCE = 20_000
_WAVELENGTH_ORDER = ("fuv", "nuv", "u", "g", "r", "i", "z", "y", "j", "h", "k", "ks", "w1", "w2")


@dataclass(frozen=True)
class Estimates:
    """One estimator's redshifts for the tested galaxies, `(n,)`, NaN where it has none."""

    key: str
    label: str
    z_phot: Floats
    note: str = ""


def training_mean(z_train: Floats, n: int) -> Estimates:
    """The mean redshift of the training galaxies for each of `n` galaxies: what knowing nothing scores."""
    return Estimates("training_mean", "Mean of the training redshifts", np.full(n, z_train.mean()))


def survey_photo_z(test: pd.DataFrame) -> Estimates | None:
    """The survey's own photometric redshifts, where it publishes any."""
    if "z_phot_survey" not in test or not test["z_phot_survey"].notna().any():
        return None
    z_phot = test["z_phot_survey"].to_numpy(float)
    missing = int(np.isnan(z_phot).sum())
    note = f"{missing:,} of {len(test):,} have none and are left out of this row" if missing else ""
    return Estimates("survey", "The survey's own photo-z", z_phot, note)


def magnitude_bands(columns: Sequence[str]) -> list[str]:
    """The `mag_*` columns from blue to red where the bands are known ones, else in the table's order."""
    bands = [name for name in columns if name.startswith("mag_") and not name.startswith("mag_err_")]
    known = {f"mag_{band}": place for place, band in enumerate(_WAVELENGTH_ORDER)}
    return sorted(bands, key=lambda name: known.get(name, len(known)))


def magnitude_baselines(train: pd.DataFrame, test: pd.DataFrame) -> tuple[list[Estimates], str]:
    """Trees and nearest neighbours on g, r, i and on all bands, and a remark where some or all are impossible.

    Both tables hold `mag_*`; `train` also `z_spec`. A band is used where at least half of the training galaxies
    have it.
    """
    bands = [band for band in magnitude_bands(list(train.columns)) if band in test]
    bands = [band for band in bands if train[band].notna().mean() >= 0.5]
    if not bands:
        return [], "The catalogue has no magnitudes: no baseline on magnitudes is possible."
    train = train.loc[train[bands].notna().any(axis=1)].head(MAX_TRAIN)
    if len(train) < MIN_TRAIN:
        return [], f"Only {len(train)} training galaxies with magnitudes: no baseline on magnitudes."
    found: list[Estimates] = []
    if set(JPEG_BANDS) <= set(bands):
        found += _on_bands(list(JPEG_BANDS), "gri", train, test)
    if list(JPEG_BANDS) != bands:
        found += _on_bands(bands, "all_bands", train, test)
    return found, ""


def _on_bands(bands: list[str], variant: str, train: pd.DataFrame, test: pd.DataFrame) -> list[Estimates]:
    names = ", ".join(band.removeprefix("mag_") for band in bands)
    features, wanted = colours_and_magnitude(train, bands), colours_and_magnitude(test, bands)
    z_train = train["z_spec"].to_numpy(float)
    gaps = int(np.isnan(wanted).any(axis=1).sum())
    with_gaps = f"{gaps:,} of {len(test):,} lack a magnitude: " if gaps else ""
    return [
        Estimates(
            f"trees_{variant}", f"Gradient boosting on {names}", boosted_trees(features, z_train, wanted),
            with_gaps and with_gaps + "the trees take the gap as it is",
        ),
        Estimates(
            f"knn_{variant}", f"Nearest neighbours on {names}", nearest_neighbours(features, z_train, wanted),
            with_gaps and with_gaps + "the training median stands in",
        ),
    ]  # fmt: skip


def colours_and_magnitude(table: pd.DataFrame, bands: Sequence[str]) -> Floats:
    """Colours of neighbouring bands and one magnitude (r, else the middle band), `(n, bands)`; NaN where missing."""
    mags = table[list(bands)].to_numpy(float)
    mags = np.where(np.isfinite(mags), mags, np.nan)
    reference = bands.index("mag_r") if "mag_r" in bands else len(bands) // 2
    return np.column_stack([mags[:, :-1] - mags[:, 1:], mags[:, reference]])


def boosted_trees(features: Floats, z_train: Floats, wanted: Floats) -> Floats:
    """Gradient boosting of the median of log(1+z), whose error is that of dz."""
    model = HistGradientBoostingRegressor(
        loss="absolute_error", learning_rate=0.05, max_iter=300, early_stopping=False, random_state=0
    )
    # On small tables threads spend more time waiting for one another than working.
    with threadpool_limits(1 if len(features) < _THREADS_FROM else None):
        model.fit(features, np.log1p(z_train))
        return np.asarray(np.expm1(model.predict(wanted)))


def nearest_neighbours(features: Floats, z_train: Floats, wanted: Floats) -> Floats:
    """Mean redshift of the nearest galaxies, by inverse distance in features scaled to equal quartiles.

    Training galaxies with a gap are left out; a gap in a wanted one is filled with the training median.
    """
    whole = np.isfinite(features).all(axis=1)
    features, z_train = features[whole], z_train[whole]
    middle = np.median(features, axis=0)
    low, high = np.percentile(features, [25.0, 75.0], axis=0)
    scale = np.where(high > low, high - low, 1.0)
    neighbours = min(int(np.clip(round(np.sqrt(len(features)) / 3.0), 3, 30)), len(features))
    tree = cKDTree((features - middle) / scale)
    found = []
    for start in range(0, len(wanted), _QUERIED_AT_ONCE):
        part = wanted[start : start + _QUERIED_AT_ONCE]
        filled = np.where(np.isfinite(part), part, middle)
        distance, row = tree.query((filled - middle) / scale, np.arange(1, neighbours + 1), workers=usable_cores())
        same = distance == 0.0
        weight = np.where(same.any(axis=1, keepdims=True), same, 1.0 / np.where(same, 1.0, distance))
        found.append((weight * z_train[row]).sum(axis=1) / weight.sum(axis=1))
    return np.concatenate(found)


def trees_on_stamps(features: NDArray[np.float32], z_train: Floats, wanted: NDArray[np.float32]) -> Floats:
    """Extremely randomised trees on stamp colours; they do better than boosting on a few hundred galaxies."""
    model = ExtraTreesRegressor(200, min_samples_leaf=2, max_features=1.0 / 3.0, random_state=0, n_jobs=usable_cores())
    model.fit(features, np.log1p(z_train))
    model.n_jobs = 1  # threads would add the trees' answers in any order, and round them differently
    return np.asarray(np.expm1(model.predict(wanted)))
