"""Ranks, micro-batches and looks change how a step is computed, not what is learned."""

import multiprocessing
import socket
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from photoz import runtime
from photoz.data import ImageFormat
from photoz.data.image_set import DecodedImages
from photoz.model.bins import RedshiftBins
from photoz.model.names import APERTURE_CNN, recipe_for
from photoz.model.registry import ImageShape, build_network, design
from photoz.model.scaling import InputScaling
from photoz.runtime import World
from photoz.train import distributed
from photoz.train.pixels import Pixels
from photoz.train.run import Problem, Rules, Run
from photoz.train.sample import Labelled
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
    images, z = drawn_galaxies(GALAXIES, (3, SIDE_PX, SIDE_PX), "uint8")
    layout = ImageFormat(format="jpg", channels=3, height=SIDE_PX, width=SIDE_PX, dtype="uint8", source="files")
    stored = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    pixels = Pixels(Labelled(DecodedImages(stored, pa.table({"z_spec": z, "ebv": z[::-1] / 5}), layout), z), CPU)
    recipe = replace(recipe_for(APERTURE_CNN, 8000), epochs=epochs, batch_size=20, augment=False, members=1)
    bins = RedshiftBins.covering(z, 40)
    torch.manual_seed(0)
    shape = ImageShape(3, SIDE_PX, SIDE_PX)
    network = build_network(APERTURE_CNN, design(APERTURE_CNN, shape, bins, recipe), InputScaling.of(images))
    network.prepare(pixels.take(np.arange(50))[0])
    problem = Problem(pixels, pixels, bins, recipe, 0, CPU, world)
    run = Run(problem, network, lambda state: None, Rules(1e9, micro_batch))
    run.look_every = look_every
    run.train()
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in run.network.parameters()])
    return Learned([row["train_loss"] for row in run.progress.history], weights.tolist())


def learn_as(rank: int, size: int, port: int, results: "multiprocessing.Queue[Learned]") -> None:
    world = World(rank, rank, size, size)
    with runtime.acting_as(world, port), distributed.joined(world, CPU, 60):
        found = learn(world)
        if rank == 0:
            results.put(found)


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
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[Learned] = context.Queue()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ranks = [context.Process(target=learn_as, args=(rank, size, port, results)) for rank in range(size)]
    for process in ranks:
        process.start()
    found = results.get(timeout=120)
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    close(found, alone)
