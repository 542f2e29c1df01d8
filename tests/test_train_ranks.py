"""Ranks, micro-batches and looks change how a step is computed, not what is learned."""

import multiprocessing
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from photoz import runtime
from photoz.data import ImageFormat
from photoz.data.image_set import DecodedImages
from photoz.model.bins import RedshiftBins
from photoz.model.names import APERTURE_CNN, recipe_for
from photoz.model.network import Network
from photoz.model.registry import ImageShape, build_network, design
from photoz.model.scaling import InputScaling
from photoz.runtime import World
from photoz.train import distributed
from photoz.train.forward import measured
from photoz.train.pixels import Pixels
from photoz.train.problem import Problem
from photoz.train.run import Rules, train
from photoz.train.sample import Labelled
from photoz.train.state import Checkpoint
from tests.training_support import drawn_galaxies

pytestmark = pytest.mark.usefixtures("one_core")
CPU = torch.device("cpu")
SIDE_PX, GALAXIES = 24, 101


@dataclass(frozen=True)
class Learned:
    """What a run comes to: the loss of each epoch, and all weights in a row."""

    losses: list[float]
    weights: list[float]


def learn(world: World, micro_batch: int | None = None, look_every: int = 1, epochs: int = 2) -> Learned:
    """A short run without anything random but the order of galaxies."""
    torch.set_num_threads(1)
    problem, network = problem_of(GALAXIES, world)
    problem = replace(problem, recipe=replace(problem.recipe, epochs=epochs))
    problem = replace(problem, look_every=look_every)
    state = problem.begin(network)
    train(problem, state, Rules(micro_batch=micro_batch))
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in state.network.parameters()])
    return Learned([row["train_loss"] for row in state.progress.history], weights.tolist())


def problem_of(count: int, world: World, shift_px: int = 0) -> tuple[Problem, Network]:
    """Drawn galaxies to train and validate on, without anything random but their order, and a first network."""
    images, z = drawn_galaxies(count, (3, SIDE_PX, SIDE_PX), "uint8")
    layout = ImageFormat(format="jpg", channels=3, height=SIDE_PX, width=SIDE_PX, dtype="uint8", source="files")
    stored = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    labelled = Labelled(DecodedImages(stored, pa.table({"z_spec": z, "ebv": z[::-1] / 5}), layout), z)
    pixels, val = (Pixels(labelled, CPU, ["ebv"]) for _ in range(2))
    recipe = replace(recipe_for(APERTURE_CNN, 8000), batch_size=20, augment=False, members=1, shift_px=shift_px)
    bins = RedshiftBins.covering(z, 40)
    torch.manual_seed(0)
    sizes = design(APERTURE_CNN, ImageShape(3, SIDE_PX, SIDE_PX), bins, recipe)
    network = build_network(APERTURE_CNN, sizes, InputScaling.of(images))
    network.prepare(pixels.take(np.arange(50))[0])
    return Problem(pixels, val, bins, recipe, 0, CPU, world), network


def measurements(world: World) -> list[list[float]]:
    """What a network measures of more galaxies than a batch or two of them hold."""
    torch.set_num_threads(1)
    problem, network = problem_of(1100, world)
    known = measured(network, "train", problem.train, world, CPU)
    found: list[list[float]] = known.take(np.arange(1100))[0].measured_bf.tolist()
    return found


def act_as(
    rank: int, size: int, port: int, act: Callable[[World], object], results: "multiprocessing.Queue[object]"
) -> None:
    world = World(rank, rank, size, size)
    with runtime.acting_as(world, port), distributed.joined(world, CPU, 60):
        results.put((rank, act(world)))


def on_ranks(size: int, act: Callable[[World], Any]) -> list[Any]:
    """What `act` gives in each of so many processes that are ranks of one training."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[Any] = context.Queue()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ranks = [context.Process(target=act_as, args=(rank, size, port, act, results)) for rank in range(size)]
    for process in ranks:
        process.start()
    found = dict(results.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    return [found[rank] for rank in range(size)]


@pytest.fixture(scope="module")
def alone() -> Learned:
    threads = torch.get_num_threads()
    found = learn(World())
    torch.set_num_threads(threads)
    return found


def close(one: Learned, other: Learned) -> None:
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4)
    np.testing.assert_allclose(one.weights, other.weights, atol=2e-3)


def test_losses_seen_later_are_the_same_losses(alone: Learned) -> None:
    assert learn(World(), look_every=7) == alone


def test_a_batch_in_parts_gives_what_it_gives_as_a_whole(alone: Learned) -> None:
    close(learn(World(), micro_batch=7), alone)


@pytest.mark.real
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_share_a_batch_learn_what_one_learns_of_the_whole(alone: Learned, size: int) -> None:
    # 101 galaxies in batches of 20 or 21: shares are uneven.
    close(on_ranks(size, learn)[0], alone)


@pytest.mark.real
def test_ranks_that_share_the_measuring_have_the_bits_that_one_has() -> None:
    # 1,100 galaxies are three batches: shares are uneven.
    threads = torch.get_num_threads()
    alone = measurements(World())
    torch.set_num_threads(threads)
    assert len(alone[0]) > 100 and np.ptp(alone, axis=0).min() > 0
    assert on_ranks(2, measurements) == [alone, alone]


@pytest.mark.parametrize(("shift_px", "kept"), [(0, True), (1, False)])
def test_photometry_is_kept_unless_images_are_shifted(shift_px: int, kept: bool) -> None:
    problem, network = problem_of(60, World(), shift_px)
    problem = replace(problem, recipe=replace(problem.recipe, epochs=1, augment=True))
    state = problem.begin(network)
    trained, asked = [], []
    state.network.register_forward_pre_hook(lambda _, given: trained.append(given[2].shape[1]))
    features = state.average.network.features
    state.average.network.features = lambda given: asked.append(given.measured_bf.shape[1]) or features(given)
    train(problem, state)
    assert trained == [network.measurements if kept else 0] * 3
    assert asked == [network.measurements]


def test_a_run_with_photometry_measured_before_goes_on_to_the_same_bits() -> None:
    problem, network = problem_of(60, World())
    problem = replace(problem, recipe=replace(problem.recipe, epochs=3, augment=True, dropout=0.1))
    saved: list[bytes] = []
    unbroken = problem.begin(network)
    train(problem, unbroken, save=lambda checkpoint: saved.append(checkpoint.encode()))
    assert len(saved) == 3
    again, network = problem_of(60, World())
    again = replace(again, recipe=problem.recipe)
    resumed = again.begin(network)
    resumed.restore(Checkpoint.decode(saved[0], CPU))
    train(again, resumed)
    assert resumed.progress.history == unbroken.progress.history
    weights = (run.network.state_dict().values() for run in (resumed, unbroken))
    assert all(torch.equal(own, other) for own, other in zip(*weights, strict=True))
