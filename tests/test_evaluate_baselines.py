"""Baselines on the real SDSS rows that ship with kcorrect, split by blocks of sky."""

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsRegressor

from photoz.evaluate.baselines import (
    Estimates,
    boosted_trees,
    colours_and_magnitude,
    magnitude_bands,
    magnitude_baselines,
    nearest_neighbours,
    survey_photo_z,
    training_mean,
)
from photoz.evaluate.metrics import r2
from photoz.evaluate.stamps import colours
from photoz.metrics import outlier_fraction, scaled_residual, sigma_mad
from tests.evaluate_chain import sdss_rows


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return sdss_rows()


@pytest.fixture(scope="module")
def found(rows: pd.DataFrame) -> dict[str, Estimates]:
    train, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    estimates, remark = magnitude_baselines(train, test)
    assert remark == ""
    return {one.key: one for one in estimates}


def test_baselines_reach_the_marks_known_for_these_galaxies(rows: pd.DataFrame, found: dict[str, Estimates]) -> None:
    """Known from another split of the same rows: trees 0.0164 and 0.0139, neighbours 0.0163 and 0.0142."""
    z_spec = rows.loc[rows["split"] == "test", "z_spec"].to_numpy(float)
    known = {"trees_gri": 0.0164, "knn_gri": 0.0163, "trees_all_bands": 0.0139, "knn_all_bands": 0.0142}
    assert set(found) == set(known)
    for key, mark in known.items():
        dz = scaled_residual(found[key].z_phot, z_spec)
        assert sigma_mad(dz) == pytest.approx(mark, rel=0.08), key
        assert 0.01 < outlier_fraction(dz) < 0.055
        assert r2(found[key].z_phot, z_spec) > 0.78
    gain = [sigma_mad(scaled_residual(found[key].z_phot, z_spec)) for key in ("trees_all_bands", "trees_gri")]
    assert gain[0] < gain[1]


def test_gaps_are_counted_and_every_galaxy_still_gets_a_redshift(found: dict[str, Estimates]) -> None:
    assert all(np.isfinite(one.z_phot).all() for one in found.values())
    assert "lack a magnitude" in found["trees_all_bands"].note
    assert "training median" in found["knn_all_bands"].note
    assert found["trees_gri"].note == ""


def test_shuffled_redshifts_teach_nothing(rows: pd.DataFrame) -> None:
    train, test = rows[rows["split"] == "train"].head(1000), rows[rows["split"] == "test"].head(500)
    shuffled = train.assign(z_spec=np.random.default_rng(0).permutation(train["z_spec"]))
    estimates, _ = magnitude_baselines(shuffled, test)
    z_spec = test["z_spec"].to_numpy(float)
    assert all(r2(one.z_phot, z_spec) < 0.1 for one in estimates)


def test_the_same_rows_give_the_same_redshifts_bit_for_bit(rows: pd.DataFrame) -> None:
    train, test = rows[rows["split"] == "train"].head(600), rows[rows["split"] == "test"].head(200)
    first, again = magnitude_baselines(train, test)[0], magnitude_baselines(train, test)[0]
    assert all((a.z_phot == b.z_phot).all() for a, b in zip(first, again, strict=True))


def test_bands_go_from_blue_to_red_and_unknown_ones_keep_their_order() -> None:
    assert magnitude_bands(["mag_z", "mag_err_u", "ra", "mag_g", "mag_u"]) == ["mag_u", "mag_g", "mag_z"]
    assert magnitude_bands(["mag_f850lp", "mag_f606w"]) == ["mag_f850lp", "mag_f606w"]


def test_features_are_colours_and_one_magnitude() -> None:
    table = pd.DataFrame({"mag_g": [18.0], "mag_r": [17.2], "mag_i": [np.inf]})
    found = colours_and_magnitude(table, ["mag_g", "mag_r", "mag_i"])
    assert found[0, 0] == pytest.approx(0.8)
    assert np.isnan(found[0, 1])
    assert found[0, 2] == 17.2


def test_a_catalogue_without_magnitudes_says_so() -> None:
    rows = pd.DataFrame({"z_spec": [0.1, 0.2]})
    estimates, remark = magnitude_baselines(rows, rows)
    assert estimates == []
    assert "no magnitudes" in remark


def test_too_few_training_galaxies_say_so(rows: pd.DataFrame) -> None:
    estimates, remark = magnitude_baselines(rows.head(5), rows.head(50))
    assert estimates == []
    assert "Only 5 training galaxies" in remark


def test_bands_that_most_galaxies_lack_are_not_used(rows: pd.DataFrame) -> None:
    sparse = rows.head(500).assign(mag_u=np.nan, mag_z=np.nan)
    estimates, _ = magnitude_baselines(sparse, sparse)
    assert {one.key for one in estimates} == {"trees_gri", "knn_gri"}


def test_own_bands_stand_alone_where_there_is_no_gri(rows: pd.DataFrame) -> None:
    own = rows.head(400).rename(columns={"mag_g": "mag_f606w", "mag_r": "mag_f775w", "mag_i": "mag_f850lp"})
    own = own.drop(columns=["mag_u", "mag_z"])
    estimates, _ = magnitude_baselines(own, own)
    assert {one.key for one in estimates} == {"trees_all_bands", "knn_all_bands"}
    assert "f606w, f775w, f850lp" in estimates[0].label


def test_nearest_neighbours_are_those_of_scikit_learn_known_positions_included() -> None:
    rng = np.random.default_rng(0)
    features, z_train = rng.normal(size=(900, 3)), rng.random(900)
    wanted = np.vstack([rng.normal(size=(200, 3)), features[:20]])
    scale = np.subtract(*np.percentile(features, [75.0, 25.0], axis=0))
    theirs = KNeighborsRegressor(10, weights="distance").fit(features / scale, z_train).predict(wanted / scale)
    assert nearest_neighbours(features, z_train, wanted) == pytest.approx(theirs, rel=1e-9)


def test_neighbours_survive_constant_features_and_a_handful_of_galaxies() -> None:
    features, z = np.ones((4, 2)), np.array([0.1, 0.2, 0.3, 0.4])
    assert nearest_neighbours(features, z, np.array([[1.0, np.nan]])) == pytest.approx([0.25], abs=0.1)
    assert np.isfinite(boosted_trees(features, z, features)).all()


def test_mean_and_survey_estimates_are_what_they_say() -> None:
    assert training_mean(np.array([0.1, 0.3]), 2).z_phot.tolist() == [0.2, 0.2]
    survey = survey_photo_z(pd.DataFrame({"z_phot_survey": [0.1, np.nan]}))
    assert survey is not None
    assert survey.note == "1 of 2 have none and are left out of this row"
    assert survey_photo_z(pd.DataFrame({"z_phot_survey": [np.nan]})) is None
    assert survey_photo_z(pd.DataFrame({"ra": [1.0]})) is None


@pytest.mark.parametrize(
    ("shape", "dtype"), [((7, 3, 32, 32), "uint8"), ((2, 5, 64, 64), "float32"), ((1, 1, 9, 8), "int16")]
)
def test_stamp_colours_take_any_channels_size_and_type(shape: tuple[int, ...], dtype: str) -> None:
    images = np.random.default_rng(0).normal(50, 10, shape).astype(dtype)
    found = colours(images)
    assert found.shape == (shape[0], 8 * shape[1] + 8 * (shape[1] - 1))
    assert np.isfinite(found).all()
    flat = colours(np.zeros(shape, dtype))
    assert (flat == 0).all()
