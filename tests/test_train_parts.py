import math

import numpy as np
import pytest
import torch

from photoz.model.bins import RedshiftBins
from photoz.model.names import recipe_for
from photoz.model.orientation import turned
from photoz.train.augment import turn_at_random
from photoz.train.losses import BinnedLoss
from photoz.train.optimizer import learning_rate


def test_eight_orientations_of_an_image_are_all_different() -> None:
    image = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3)
    assert len({turned(image, number).numpy().tobytes() for number in range(8)}) == 8


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 6)])
def test_turned_images_keep_their_place_type_and_pixels(shape: tuple[int, int, int]) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (29, *shape)).astype(np.uint8))
    found = turn_at_random(images, torch.Generator().manual_seed(1))
    assert found.shape == images.shape
    assert found.dtype == torch.uint8
    assert not torch.equal(found, images)
    for before, after in zip(images, found, strict=True):
        assert sorted(before.flatten().tolist()) == sorted(after.flatten().tolist())


def test_a_lone_image_is_turned_too() -> None:
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
    generator = torch.Generator().manual_seed(0)
    assert len({turn_at_random(image, generator).numpy().tobytes() for _ in range(100)}) == 8


@pytest.mark.parametrize("galaxies", [300, 1999, 2000, 4157, 6484, 10_833, 20_000, 500_000])
def test_every_sample_has_enough_steps_and_enough_epochs(galaxies: int) -> None:
    recipe = recipe_for("aperture-cnn", galaxies)
    assert 12 <= recipe.epochs <= 60
    assert recipe.epochs * math.ceil(galaxies / recipe.batch_size) >= (300 if galaxies < 2000 else 480)


def test_the_rate_warms_up_and_comes_down_to_a_hundredth() -> None:
    recipe = recipe_for("aperture-cnn", 5000)
    rates = [learning_rate(recipe, step, 200) for step in range(200)]
    assert rates[0] < 0.2 * recipe.learning_rate
    assert max(rates) == pytest.approx(recipe.learning_rate)
    assert rates[-1] < 0.02 * recipe.learning_rate
    assert learning_rate(recipe_for("menko2024", 5000), 150, 200) == pytest.approx(5e-5)


def test_a_guess_nearby_costs_less_than_one_far_away_and_the_truth_least() -> None:
    bins = RedshiftBins(0.0, 1.0, 50)
    loss = BinnedLoss(bins, 0.02, torch.device("cpu"))
    truth = torch.tensor([0.5])
    costs = []
    for shift in (0, 4, 12, 20):
        log_z = torch.log1p(truth)[:, None] - shift * bins.log_width
        costs.append(float(loss(torch.log(loss.smoothed(log_z) + 1e-8)[None], truth)))
    assert costs == sorted(costs)
    assert len(set(costs)) == 4


def test_smoothed_labels_are_whole_even_at_the_ends_of_the_bins() -> None:
    loss = BinnedLoss(RedshiftBins(0.0, 1.0, 50), 0.02, torch.device("cpu"))
    mass = loss.smoothed(torch.log1p(torch.tensor([[0.0], [0.3], [1.0]])))
    torch.testing.assert_close(mass.sum(1), torch.ones(3))
    assert (mass >= 0).all()


def test_a_redshift_that_no_bin_holds_counts_as_the_nearest_that_one_does() -> None:
    loss = BinnedLoss(RedshiftBins(0.1, 1.0, 50), 0.0075, torch.device("cpu"))
    logits_mbz = torch.randn(1, 1, 50, generator=torch.Generator().manual_seed(0))
    below, first, last, beyond = (float(loss(logits_mbz, torch.tensor([z]))) for z in (-0.1, 0.1, 1.0, 7.0))
    assert np.isfinite([below, beyond]).all()
    assert (below, beyond) == pytest.approx((first, last), rel=1e-5)


def test_shifts_move_images_by_a_pixel_at_most() -> None:
    image = torch.zeros(64, 1, 9, 9, dtype=torch.uint8)
    image[:, :, 4, 4] = 1
    generator = torch.Generator().manual_seed(0)
    found = sum(turn_at_random(image, generator, shift_px=1).sum(0) for _ in range(20))[0]
    assert found.sum() == 20 * 64
    assert found[3:6, 3:6].sum() == 20 * 64
    assert (found[3:6, 3:6] > 0).all()
