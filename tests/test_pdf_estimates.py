import numpy as np
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from photoz.model import pdf as redshift_pdf
from photoz.model.bins import RedshiftBins
from photoz.model.calibration import Calibration, fit_calibration
from photoz.model.residuals import ResidualSpread

BINS = 12
# Zero or not too small: sums of numbers near the smallest float say nothing about the code.
masses = arrays(np.float64, (4, BINS), elements=st.just(0.0) | st.floats(1e-7, 1)).map(
    lambda mass: mass + 1e-6 * (mass.sum(1) == 0)[:, None]
)
bins = st.builds(lambda low, width: RedshiftBins(low, low + width, BINS), st.floats(0, 5), st.floats(0.01, 8))
redshifts = arrays(np.float64, 4, elements=st.floats(-0.2, 16))


@given(masses, bins)
def test_point_estimates_lie_inside_the_bins_and_intervals_hold_one_another(
    mass: np.ndarray, some: RedshiftBins
) -> None:
    points = redshift_pdf.point_estimates(mass, some.edges)
    ordered = np.stack([points.lo95, points.lo68, points.median, points.hi68, points.hi95])
    assert (np.diff(ordered, axis=0) >= -1e-12).all()
    for values in (*ordered, points.mean, points.mode):
        assert (values >= some.edges[0] - 1e-9).all()
        assert (values <= some.edges[-1] + 1e-9).all()


@given(masses, bins)
def test_a_quantile_is_where_the_cdf_reaches_its_level(mass: np.ndarray, some: RedshiftBins) -> None:
    levels = np.array([0.1, 0.5, 0.9])
    cdf = redshift_pdf.cdf(mass)
    found = redshift_pdf.quantiles(cdf, some.edges, levels)
    for row in range(len(mass)):
        np.testing.assert_allclose(np.interp(found[row], some.edges, cdf[row]), levels, atol=1e-6)


@settings(deadline=None)
@given(masses, bins, redshifts)
def test_crps_equals_the_integral_taken_by_brute_force(mass: np.ndarray, some: RedshiftBins, z: np.ndarray) -> None:
    edges = some.edges
    low, high = min(edges[0], z.min()) - 0.1, max(edges[-1], z.max()) + 0.1
    grid = np.linspace(low, high, 20001)
    middles, step = 0.5 * (grid[1:] + grid[:-1]), grid[1] - grid[0]
    cdf = redshift_pdf.cdf(mass)
    brute = [
        np.sum((np.interp(middles, edges, cdf[row], 0, 1) - (middles >= z[row])) ** 2) * step for row in range(len(z))
    ]
    np.testing.assert_allclose(redshift_pdf.crps(mass, edges, z), brute, rtol=1e-3, atol=2e-3)


@given(bins, st.integers(0, BINS - 1), redshifts)
def test_crps_of_a_narrow_pdf_is_nearly_the_absolute_error(some: RedshiftBins, where: int, z: np.ndarray) -> None:
    mass = np.zeros((4, BINS))
    mass[:, where] = 1.0
    centre, width = some.edges[where : where + 2].mean(), np.diff(some.edges)[where]
    assert (np.abs(redshift_pdf.crps(mass, some.edges, z) - np.abs(z - centre)) <= width).all()


@given(masses, bins, redshifts)
def test_pit_is_a_probability_and_rises_with_the_true_redshift(
    mass: np.ndarray, some: RedshiftBins, z: np.ndarray
) -> None:
    here, farther = redshift_pdf.pit(mass, some.edges, z), redshift_pdf.pit(mass, some.edges, z + 0.3)
    assert ((here >= 0) & (here <= 1) & (farther >= here - 1e-12)).all()


@given(masses, st.floats(0.3, 4), st.floats(0.3, 3))
def test_calibration_keeps_pdfs_whole_and_their_medians_in_order(
    mass: np.ndarray, temperature: float, beta: float
) -> None:
    whole = mass / mass.sum(axis=1, keepdims=True)
    calibrated = Calibration(temperature, beta).apply(whole)
    assert (calibrated >= 0).all()
    np.testing.assert_allclose(calibrated.sum(axis=1), 1.0)
    assert (np.diff(redshift_pdf.cdf(calibrated), axis=1) >= 0).all()


@given(masses, st.floats(0.22, 4.5))
def test_calibration_goes_through_the_beta_distributions_cdf(mass: np.ndarray, beta: float) -> None:
    whole = (mass + 1e-6) / (mass + 1e-6).sum(axis=1, keepdims=True)
    below = redshift_pdf.cdf(whole)
    expected = np.diff(scipy.stats.beta(beta, beta).cdf(below), axis=1)
    np.testing.assert_allclose(Calibration(1.0, beta).apply(whole), expected, atol=2e-7)


def test_calibration_of_1_changes_nothing() -> None:
    whole = np.random.default_rng(0).dirichlet(np.ones(BINS), 5)
    np.testing.assert_allclose(Calibration().apply(whole), whole, atol=1e-6)


def test_calibration_widens_pdfs_that_are_too_narrow_and_narrows_wide_ones() -> None:
    some, rng = RedshiftBins(0.0, 1.0, 100), np.random.default_rng(1)
    truth = rng.uniform(0.3, 0.7, 4000)
    guess = truth + rng.normal(0, 0.05, len(truth))
    for claimed in (0.025, 0.1):
        mass = np.diff(np.exp(-0.5 * ((some.edges[None] - guess[:, None]) / claimed) ** 2).cumsum(axis=1), axis=1)
        mass /= mass.sum(axis=1, keepdims=True)
        calibrated = fit_calibration(mass, some.edges, truth).apply(mass)
        before, after = (redshift_pdf.pit(one, some.edges, truth) for one in (mass, calibrated))
        assert _unevenness(after) < 0.4 * _unevenness(before)
        inside = np.mean((after > 0.16) & (after < 0.84))
        assert abs(inside - 0.68) < 0.05


def test_a_handful_of_galaxies_can_not_bend_the_calibration_far() -> None:
    some = RedshiftBins(0.0, 1.0, 50)
    mass = np.full((3, 50), 1 / 50)
    found = fit_calibration(mass, some.edges, np.array([0.9, 0.95, 0.99]))
    assert 0.7 < found.temperature < 1.4
    assert 0.6 < found.beta < 1.7


def test_a_regression_gets_the_spread_of_its_residuals_as_pdf() -> None:
    some, rng = RedshiftBins(0.0, 0.5, 200), np.random.default_rng(2)
    truth = rng.uniform(0.05, 0.4, 3000)
    said = truth + rng.normal(0.01, 0.02, len(truth)) * (1 + truth)
    mass = ResidualSpread.of(said, truth).pdf(said, some.edges)
    np.testing.assert_allclose(mass.sum(axis=1), 1.0)
    pit = redshift_pdf.pit(mass, some.edges, truth)
    assert _unevenness(pit) < 0.02
    absurd = ResidualSpread.of(said, truth).pdf(np.array([1e14, -3.0]), some.edges)
    assert np.isfinite(redshift_pdf.point_estimates(absurd, some.edges).median).all()


def test_bins_cover_the_training_range_and_stay_at_0_or_above_it() -> None:
    some = RedshiftBins.covering(np.array([0.003, 0.2, 0.39]), 200)
    assert 0.0 <= some.low <= 0.003
    assert 0.39 < some.high < 0.45
    assert RedshiftBins.from_json(some.to_json()) == some
    assert len(some.edges) == 201
    blueshifted = RedshiftBins.covering(np.array([-0.001, 0.01]), 50)
    assert blueshifted.low <= -0.001
    deep = RedshiftBins.covering(np.array([0.08, 5.53]), 200)
    assert 0.0 <= deep.low < 0.08
    assert 5.53 < deep.high < 6.6


def _unevenness(pit: np.ndarray) -> float:
    """Largest distance of the PITs' empirical CDF from the uniform one."""
    return float(np.abs(np.sort(pit) - (np.arange(len(pit)) + 0.5) / len(pit)).max())
