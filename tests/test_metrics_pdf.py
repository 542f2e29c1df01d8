"""Metrics of PDFs against closed forms and plain numerical integration."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from photoz.evaluate.metrics import Bootstrap
from photoz.evaluate.pdf_metrics import PdfScores, cde_loss, ks_distance, pdf_metrics, pit_outlier_rate

EDGES = np.linspace(0.0, 1.0, 201)
MASSES = st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).filter(lambda values: sum(values) > 0.01)


def gaussians(mean_n: np.ndarray, sigma: float) -> np.ndarray:
    """Mass of Gaussian PDFs in the bins."""
    below = stats.norm.cdf((EDGES - mean_n[:, None]) / sigma)
    return np.diff(below, axis=1)


def test_cde_loss_of_a_uniform_pdf_is_minus_its_density() -> None:
    mass = np.full((3, 200), 1 / 200)
    assert cde_loss(mass, EDGES, np.array([0.1, 0.5, 0.9])) == pytest.approx([-1.0] * 3)
    # outside of the bins the density is 0: only the integral of p² is left
    assert cde_loss(mass[:1], EDGES, np.array([1.5])) == pytest.approx([1.0])


def test_cde_loss_of_a_gaussian_matches_its_closed_form() -> None:
    sigma, mean = 0.05, 0.5025
    truth = np.array([mean, mean + 0.05])  # centres of bins, where the density in a bin is that at the point
    found = cde_loss(gaussians(np.array([mean, mean]), sigma), EDGES, truth)
    square = 1 / (2 * np.sqrt(np.pi) * sigma)
    assert found == pytest.approx(square - 2 * stats.norm.pdf(truth, mean, sigma), rel=0.005)


@given(MASSES, st.floats(-0.2, 1.2))
@settings(deadline=None)
def test_crps_and_cde_loss_match_numerical_integration_on_uneven_bins(mass: list[float], truth: float) -> None:
    edges = np.array([0.0, 0.1, 0.3, 0.35, 1.0])
    share = np.array([mass]) / sum(mass)
    scores = PdfScores.of(share, edges, np.array([truth]))
    grid = np.linspace(-0.5, 1.5, 400_001)
    cdf = np.interp(grid, edges, np.r_[0.0, np.cumsum(share[0])])
    step = (grid >= truth).astype(float)
    assert scores.crps[0] == pytest.approx(np.trapezoid((cdf - step) ** 2, grid), abs=2e-5)
    assert scores.pit[0] == pytest.approx(np.interp(truth, edges, np.r_[0.0, np.cumsum(share[0])]), abs=1e-12)
    density = share[0] / np.diff(edges)
    assert scores.cde_loss[0] >= (density**2 * np.diff(edges)).sum() - 2 * density.max() - 1e-9


def test_ks_distance_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).beta(1.3, 0.9, 500)
    assert ks_distance(values) == pytest.approx(stats.kstest(values, "uniform").statistic)


def test_honest_pdfs_have_uniform_pit_right_coverage_and_the_lowest_scores() -> None:
    rng = np.random.default_rng(1)
    centre, sigma = rng.uniform(0.3, 0.7, 4000), 0.03
    truth = rng.normal(centre, sigma)
    scores = {
        name: PdfScores.of(gaussians(centre + shift, width), EDGES, truth)
        for name, shift, width in (
            ("honest", 0.0, sigma),
            ("narrow", 0.0, sigma / 2),
            ("wide", 0.0, 2 * sigma),
            ("shifted", 0.02, sigma),
        )
    }
    assert ks_distance(scores["honest"].pit) < 1.36 / np.sqrt(4000)  # 5 % level
    for name in ("narrow", "wide", "shifted"):
        assert ks_distance(scores[name].pit) > 0.05
        assert scores[name].crps.mean() > scores["honest"].crps.mean()
        assert scores[name].cde_loss.mean() > scores["honest"].cde_loss.mean()
    assert scores["honest"].crps.mean() == pytest.approx(sigma / np.sqrt(np.pi), rel=0.03)


def test_pit_outliers_are_truths_held_to_be_impossible() -> None:
    assert pit_outlier_rate(np.array([0.0, 0.00005, 0.5, 0.99995, 0.2])) == pytest.approx(3 / 5)


def test_metrics_of_pdfs_leave_out_what_their_columns_lack() -> None:
    values = np.random.default_rng(0).uniform(size=40)
    found = pdf_metrics({"pit": values, "in_68": (values < 0.7).astype(float)}, Bootstrap(samples=20))
    assert set(found) == {"pit_ks", "pit_outlier_rate", "coverage_68"}
    assert all(one.value is not None for one in found.values())


@pytest.mark.parametrize("n", [1, 5, 20])
def test_tiny_samples_of_pdfs_score_without_warnings(n: int) -> None:
    scores = PdfScores.of(np.full((n, 200), 1 / 200), EDGES, np.full(n, 0.4))
    columns = {"pit": scores.pit, "crps": scores.crps, "cde_loss": scores.cde_loss}
    found = pdf_metrics(columns, Bootstrap(samples=20))
    assert found["crps"].value == pytest.approx(float(scores.crps[0]))
    assert (found["crps"].error is None) == (n < 10)
