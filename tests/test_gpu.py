"""What only a CUDA device can show: copies beside computing, images that stay there, NCCL, bfloat16."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from photoz.artifacts import Artifact
from photoz.data import ImageFormat, open_shards
from photoz.data.batches import fits_on, on_device, to_device
from photoz.data.image_set import DecodedImages
from photoz.infer import InferSettings
from photoz.model.bins import RedshiftBins
from photoz.model.devices import autocast
from photoz.model.names import APERTURE_CNN, MENKO2024, TORCHVISION, Recipe, recipe_for
from photoz.model.registry import ImageShape, build_network, design
from photoz.model.scaling import InputScaling
from photoz.runtime import World
from photoz.train import graphs
from photoz.train.losses import BinnedLoss
from photoz.train.pixels import Pixels
from photoz.train.problem import Problem
from photoz.train.run import Rules
from photoz.train.run import train as train_state
from photoz.train.sample import Labelled, load_labelled
from photoz.train.state import Checkpoint, State
from tests.shards_support import every_image, processes_decode
from tests.training_support import QUICK, batch_of, drawn_galaxies, drawn_shards, infer, train

pytestmark = [pytest.mark.real, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")]

ON_GPU = replace(QUICK, device="cuda", epochs=6)
BATCHES = 50


@pytest.fixture(scope="module")
def device() -> torch.device:
    return torch.device("cuda", 0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return drawn_shards(tmp_path_factory.mktemp("gpu"), 600)


def test_batches_that_are_copied_ahead_are_whole_and_in_order(device: torch.device) -> None:
    stored = np.random.default_rng(0).integers(0, 255, (BATCHES, 64, 3, 64, 64), np.uint8)
    memory = np.empty_like(stored[0])

    def reused() -> object:
        for batch in stored:  # as from the ring: the same memory, again and again
            memory[:] = batch
            yield memory

    busy = torch.randn(2048, 2048, device=device)
    sums = []
    for batch in on_device(reused(), device):  # type: ignore[arg-type]
        busy = busy @ busy / 2048
        sums.append(batch.sum(dtype=torch.int64))
    assert torch.stack(sums).tolist() == stored.sum(axis=(1, 2, 3, 4), dtype=np.int64).tolist()


@pytest.mark.parametrize("place", ["memory", "disk", "never", "device"])
def test_images_on_the_device_are_those_of_the_shards(
    place: str, shards: Artifact, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes_decode(monkeypatch)
    source = open_shards(shards)
    whole = np.asarray(every_image(source.load("train", "memory")))
    assert fits_on(device, whole.nbytes)
    where = (source, "train", "never", device) if place == "device" else (source, "train", place)
    pixels = Pixels(load_labelled(*where), device, ())  # type: ignore[arg-type]
    parts = np.array_split(np.random.default_rng(0).permutation(len(whole)), 7)
    for part, (found, _) in zip(parts, pixels.batches(parts), strict=True):
        assert found.images_bchw.device == device
        np.testing.assert_array_equal(found.images_bchw.cpu().numpy(), whole[part])


def test_training_learns_and_infers_there_what_a_cpu_infers_from_the_same_weights(
    shards: Artifact, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes_decode(monkeypatch)
    model = train(shards, ON_GPU, name="on-gpu")
    assert model.settings["device"] == "cuda" and model.summary["validation"]["val_sigma_mad"] < 0.1
    tables = [
        infer(model, shards, InferSettings(device=where), name=where).table("test-000000.parquet").to_pandas()  # type: ignore[arg-type]
        for where in ("cuda", "cpu")
    ]
    apart = np.abs(tables[0]["z_phot"] - tables[1]["z_phot"])
    assert apart.median() < 0.005  # bfloat16 has 8 bits


def problem_on(device: torch.device, recipe: Recipe, name: str = APERTURE_CNN) -> tuple[Problem, State]:
    """A training of a few epochs, of which the batches have two sizes, before its first step."""
    images, z = drawn_galaxies(300, (3, 32, 32), "uint8")
    ebv = np.random.default_rng(0).uniform(0, 0.2, len(z))
    z += ebv  # which the images don't show
    bins, scaling = RedshiftBins.covering(z, 40), InputScaling.of(images)
    layout = ImageFormat(format="npy", channels=3, height=32, width=32, dtype="uint8", source="files")
    rows = pa.table({"z_spec": z, "ebv": ebv})
    pixels = Pixels(Labelled(DecodedImages(images, rows, layout), z), device, ["ebv"])
    torch.manual_seed(0)
    network = build_network(name, design(name, ImageShape(3, 32, 32), bins, recipe), scaling)
    network.to(device).prepare(pixels.take(np.arange(300))[0])
    problem = Problem(pixels, pixels, bins, recipe, 0, device, World())
    return problem, problem.begin(network)


RECIPE = replace(recipe_for(APERTURE_CNN, 300), epochs=8, batch_size=44)  # has dropout, shifts and a changing rate


@pytest.mark.parametrize(
    ("name", "micro_batch", "shift_px"),
    [
        (APERTURE_CNN, None, 1),
        (APERTURE_CNN, None, 0),  # its photometry is measured before
        (APERTURE_CNN, 16, 0),
        (MENKO2024, None, 0),
        ("torchvision:resnet18", None, 1),
        ("torchvision:mobilenet_v3_small", None, 1),  # has dropout
    ],
)
def test_recorded_steps_learn_what_the_same_steps_learn_one_kernel_at_a_time(
    name: str, micro_batch: int | None, shift_px: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.startswith(TORCHVISION):
        pytest.importorskip("torchvision")
        recipe = replace(RECIPE, learning_rate=2e-4)  # at higher rates rounding soon makes another network
    else:
        recipe = RECIPE if name == APERTURE_CNN else replace(recipe_for(name, 300), epochs=8, batch_size=44)
    recipe = replace(recipe, shift_px=shift_px)
    made: list[graphs.RecordedSteps] = []
    real = graphs.RecordedSteps
    monkeypatch.setattr("photoz.train.step.RecordedSteps", lambda step: made.append(real(step)) or made[-1])
    problem, recorded = problem_on(device, recipe, name)
    sizes = {problem.plan.step_size(step) for step in range(problem.plan.steps)}
    train_state(problem, recorded, Rules(micro_batch=micro_batch))
    assert len(sizes) == 2 and made[0]._graphs.keys() == sizes
    monkeypatch.setattr(graphs, "_AS_IS", 10**6)
    problem, plain = problem_on(device, recipe, name)
    train_state(problem, plain, Rules(micro_batch=micro_batch))
    assert not made[1]._graphs
    found, expected = ([row["train_loss"] for row in run.progress.history] for run in (recorded, plain))
    # Some sums are in no fixed order, and steps add up; more so in bfloat16.
    relative, absolute = (0.02, 0.0) if name == APERTURE_CNN else (0.2, 1e-3)
    np.testing.assert_allclose(found, expected, rtol=relative, atol=absolute)
    assert found[-1] < 0.8 * found[0]
    assert recorded.network.used_context == (("ebv",) if name == APERTURE_CNN else ())


def test_a_training_goes_on_from_its_checkpoint(device: torch.device) -> None:
    saved: list[bytes] = []
    problem, unbroken = problem_on(device, RECIPE)
    train_state(problem, unbroken, save=lambda checkpoint: saved.append(checkpoint.encode()))
    problem, resumed = problem_on(device, RECIPE)
    checkpoint = Checkpoint.decode(saved[3], device)
    resumed.restore(checkpoint)
    kept = list(checkpoint.optimizer["state"].values())
    for own, other in zip(resumed.optimizer.state.values(), kept, strict=True):
        assert all(torch.equal(own[name], other[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
        assert float(own["step"]) == 4 * problem.plan.steps and bool(own["exp_avg_sq"].any())
    train_state(problem, resumed)
    found, expected = ([row["train_loss"] for row in run.progress.history[4:]] for run in (resumed, unbroken))
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_menko2024_is_its_layers_one_after_the_other(device: torch.device) -> None:
    images, _ = drawn_galaxies(64, (3, 64, 64), "uint8")
    torch.manual_seed(0)
    network = build_network(MENKO2024, {}, InputScaling.of(images))
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = batch_of(to_device(images, device))
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # statistics with which images differ
    with autocast(device):
        network.train()(*batch)
    network.eval()
    with torch.inference_mode():
        expected = network.convolutions(network.light.stretched(batch.images_bchw)).mean((2, 3))  # type: ignore[operator, union-attr]
        np.testing.assert_allclose(network.features(batch).cpu(), expected.cpu(), rtol=0.02, atol=0.02)
        with autocast(device):
            found = network.features(batch)
    assert float((found - expected).abs().mean() / expected.std()) < 0.1  # bfloat16 has 8 bits: 0.051 was seen


def test_ddp_over_nccl_gives_one_rank_the_gradients_that_it_has_alone(device: torch.device, tmp_path: Path) -> None:
    images, z = drawn_galaxies(32, (3, 32, 32), "uint8")
    scaling, bins = InputScaling.of(images), RedshiftBins.covering(z, 40)
    recipe = recipe_for(APERTURE_CNN, 8000)
    sizes = design(APERTURE_CNN, ImageShape(3, 32, 32), bins, recipe)
    batch, z_spec_b = batch_of(to_device(images, device)), torch.from_numpy(z).float().to(device)
    found = []
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        for spread in (lambda network: network, lambda network: DistributedDataParallel(network, device_ids=[0])):
            torch.manual_seed(0)
            network = build_network(APERTURE_CNN, sizes, scaling).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            network.prepare(batch)
            nn.init.normal_(network.head[1].weight, std=0.05)  # which starts at 0, and lets no gradient through
            BinnedLoss(bins, recipe.smoothing, device)(spread(network)(*batch), z_spec_b).backward()  # type: ignore[no-untyped-call]
            found.append([weight.grad for weight in network.parameters() if weight.grad is not None])
    finally:
        dist.destroy_process_group()
    assert len(found[0]) == len(found[1]) > 10 and all(bool(gradient.any()) for gradient in found[0])
    assert all(torch.allclose(a, b, rtol=1e-2, atol=1e-4) for a, b in zip(*found, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_gpus_train_one_network(shards: Artifact) -> None:
    model = train(shards, replace(ON_GPU, nproc=2), name="two")
    assert model.settings["world"] == 2 and model.summary["validation"]["val_sigma_mad"] < 0.1


def test_bfloat16_is_used_where_the_device_has_it(device: torch.device) -> None:
    with autocast(device):
        product = torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)
    assert product.dtype == (torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float32)
