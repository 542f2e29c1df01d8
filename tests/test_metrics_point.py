"""Point metrics: hand-computed values, properties, and the reference project's own results."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photoz.evaluate.metrics import (
    CONVENTIONS,
    MIN_FOR_ERROR,
    Bootstrap,
    Metric,
    bias,
    mae,
    median_bias,
    outlier_fraction,
    point_columns,
    point_metrics,
    r2,
    r2_log,
    rail_outlier_fraction,
    rmse,
    running,
    scaled_residual,
    sigma_iqr,
    sigma_mad,
)

DZ = np.array([-0.1, -0.01, 0.0, 0.02, 0.2])
FINITE = st.floats(-0.9, 5.0, allow_nan=False)
REDSHIFTS = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=40)


def test_cnn_metrics_match_a_sum_done_by_hand() -> None:
    assert scaled_residual(np.array([0.22]), np.array([0.1])) == pytest.approx([0.12 / 1.1])
    assert bias(DZ) == pytest.approx(0.11 / 5)
    # median 0; |dz - 0| = .1 .01 0 .02 .2, whose median is .02
    assert sigma_mad(DZ) == pytest.approx(1.4826 * 0.02)
    assert outlier_fraction(DZ, 0.05) == pytest.approx(2 / 5)
    assert outlier_fraction(DZ, 0.15) == pytest.approx(1 / 5)


def test_rail_metrics_match_a_sum_done_by_hand() -> None:
    assert median_bias(DZ) == 0.0
    assert sigma_iqr(DZ) == pytest.approx(0.03 / 1.349)  # quartiles -0.01 and 0.02
    # 3 sigma_iqr = 0.0667 exceeds 0.06: -0.1 and 0.2 are beyond it
    assert rail_outlier_fraction(DZ) == pytest.approx(2 / 5)
    # 3 sigma_iqr is far below 0.06 here, so 0.06 is the cut
    tight = np.array([0.0, 0.001, -0.001, 0.0005, -0.0005, 0.055, 0.065])
    assert rail_outlier_fraction(tight) == pytest.approx(1 / 7)


def test_plain_metrics_match_a_sum_done_by_hand() -> None:
    z_spec, z_phot = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.5, 2.0])
    assert r2(z_phot, z_spec) == pytest.approx(1 - 0.25 / 2.0)
    assert mae(z_phot, z_spec) == pytest.approx(0.5 / 3)
    assert rmse(z_phot, z_spec) == pytest.approx(np.sqrt(0.25 / 3))
    assert r2_log(z_spec, z_spec) == pytest.approx(1.0)


def test_scatter_of_gaussian_residuals_is_their_sigma_in_both_conventions() -> None:
    dz = np.random.default_rng(0).normal(0.003, 0.02, 200_000)
    assert sigma_mad(dz) == pytest.approx(0.02, rel=0.01)
    assert sigma_iqr(dz) == pytest.approx(0.02, rel=0.01)
    assert bias(dz) == pytest.approx(0.003, abs=2e-4)


@given(st.lists(FINITE, min_size=2, max_size=50), st.floats(-1, 1))
def test_scatter_ignores_a_shift_and_bias_follows_it(values: list[float], shift: float) -> None:
    dz = np.array(values)
    assert sigma_mad(dz + shift) == pytest.approx(sigma_mad(dz), abs=1e-9)
    assert sigma_iqr(dz + shift) == pytest.approx(sigma_iqr(dz), abs=1e-9)
    assert median_bias(dz + shift) == pytest.approx(median_bias(dz) + shift, abs=1e-9)


@given(st.lists(FINITE, min_size=2, max_size=50), st.floats(0.01, 10))
def test_scatter_scales_with_its_unit(values: list[float], factor: float) -> None:
    dz = np.array(values)
    assert sigma_mad(dz * factor) == pytest.approx(factor * sigma_mad(dz), abs=1e-9)
    assert sigma_iqr(dz * factor) == pytest.approx(factor * sigma_iqr(dz), abs=1e-9)


@given(st.lists(FINITE, min_size=1, max_size=50))
def test_a_wider_cut_never_finds_more_outliers(values: list[float]) -> None:
    dz = np.array(values)
    assert 0 <= outlier_fraction(dz, 0.15) <= outlier_fraction(dz, 0.05) <= 1


@given(REDSHIFTS)
@settings(deadline=None)
def test_no_sample_crashes_warns_or_gives_a_number_that_is_not_one(pairs: list[tuple[float, float]]) -> None:
    z_phot, z_spec = np.array(pairs).T
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = point_metrics(z_phot, z_spec, Bootstrap(samples=10))
    for one in (one for group in groups.values() for one in group.values()):
        assert one.value is None or np.isfinite(one.value)
        assert one.error is None or np.isfinite(one.error)
        assert (one.value is not None and one.error is not None) or one.reason


@pytest.mark.parametrize("n", [1, 5, 20])
def test_tiny_and_constant_samples_say_what_they_cannot_give(n: int) -> None:
    groups = point_metrics(np.full(n, 0.1), np.full(n, 0.1), Bootstrap(samples=20))
    assert groups["cnn"]["bias"].value == 0.0
    assert groups["general"]["r2"].value is None
    assert groups["general"]["r2"].reason
    if n == 1:
        assert groups["cnn"]["sigma_mad"].value is None
        assert groups["cnn"]["sigma_mad"].reason == "needs 2 galaxies or more, has 1"
    else:
        assert groups["cnn"]["sigma_mad"].value == 0.0
    assert (groups["cnn"]["bias"].error is None) == (n < MIN_FOR_ERROR)


def test_resampled_metrics_agree_with_one_sample_at_a_time() -> None:
    rng = np.random.default_rng(1)
    dz = rng.normal(0, 0.02, 60)
    bootstrap = Bootstrap(samples=8, seed=3)
    rows = np.concatenate(list(bootstrap.draws(60)))
    for metric in (bias, sigma_mad, sigma_iqr, outlier_fraction, rail_outlier_fraction):
        together = bootstrap.resampled(Metric("m", ("dz",), metric), {"dz": dz})
        assert together == pytest.approx([float(metric(dz[row])) for row in rows])


def test_bootstrap_error_of_a_mean_is_sigma_over_root_n() -> None:
    rng = np.random.default_rng(2)
    columns = {"dz": rng.normal(0, 0.03, 900)}
    found = Bootstrap(samples=2000).estimate(Metric("bias", ("dz",), bias), columns)
    assert found.error == pytest.approx(0.001, rel=0.1)


def test_errors_of_many_galaxies_come_from_smaller_resamples_and_are_still_right() -> None:
    n = 400_000
    dz = np.random.default_rng(1).normal(0, 0.02, n)
    columns = point_columns(dz, np.zeros(n))
    found = {metric.name: Bootstrap(200).estimate(metric, columns).error for metric in CONVENTIONS["cnn"]}
    assert found["bias"] == pytest.approx(0.02 / n**0.5, rel=0.25)
    assert found["sigma_mad"] == pytest.approx(1.167 * 0.02 / n**0.5, rel=0.3)  # of a Gaussian (Rousseeuw & Croux 1993)
    assert next(Bootstrap(200).draws(n)).shape[1] == 100_000


def test_bootstrap_depends_on_its_seed_alone_and_not_on_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"dz": np.random.default_rng(4).normal(0, 0.03, 50)}
    metric = Metric("sigma_mad", ("dz",), sigma_mad)
    whole = Bootstrap(samples=40, seed=7).estimate(metric, columns)
    monkeypatch.setattr("photoz.evaluate.metrics._CHUNK_VALUES", 120)
    assert Bootstrap(samples=40, seed=7).estimate(metric, columns) == whole
    assert Bootstrap(samples=40, seed=8).estimate(metric, columns) != whole


def test_ratio_of_an_estimator_to_itself_has_no_error() -> None:
    z_spec = np.linspace(0.01, 0.3, 100)
    columns = point_columns(z_spec + np.random.default_rng(0).normal(0, 0.02, 100), z_spec)
    found = Bootstrap(samples=50).ratio(Metric("sigma_mad", ("dz",), sigma_mad), columns, columns)
    assert (found.value, found.error) == (1.0, 0.0)


def test_an_outlier_never_seen_gets_a_limit_instead_of_a_zero_error() -> None:
    groups = point_metrics(np.full(100, 0.1), np.linspace(0.1, 0.11, 100), Bootstrap(samples=20))
    found = groups["cnn"]["outlier_fraction_0.05"]
    assert (found.value, found.error, found.reason) == (0.0, None, "below 3 % with 95 % confidence")


def test_running_median_uses_bins_of_equal_counts_and_skips_gaps() -> None:
    x = np.r_[np.linspace(0, 1, 100), np.nan]
    run = running(x, np.r_[np.linspace(0, 1, 100), 0.0], at_least=20)
    assert run.count.tolist() == [20] * 5
    assert run.median == pytest.approx(run.centre)


def test_reference_project_scores_are_what_its_figures_show(shared_data: Path) -> None:
    """Its reported R² were 0.941 and 0.796, on rows that were mostly in its training set."""
    expected = {"val_scatter_run1_50epochs.csv": 0.941, "val_scatter_run2_80epochs.csv": 0.796}
    for name, reported in expected.items():
        with (shared_data / "seed_results" / name).open() as file:
            rows = list(csv.DictReader(file))
        z_phot, z_spec = (np.array([float(row[column]) for row in rows]) for column in ("z_pred", "z_true"))
        groups = point_metrics(z_phot, z_spec, Bootstrap(samples=50))
        r2_found = groups["general"]["r2"].value
        assert r2_found is not None and r2_found == pytest.approx(reported, abs=0.01)
        mad = groups["cnn"]["sigma_mad"].value
        assert mad is not None and 0.005 < mad < 0.05
