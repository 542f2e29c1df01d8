"""Images that are decoded each time: by offset, in worker processes, into shared memory."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from photoz.artifacts import Artifact
from photoz.data import EpochPlan, Images, ShardSet, open_shards
from photoz.data.image_set import StreamedImages
from photoz.errors import BadFormat, BadInput, TryAgain
from photoz.shards import ShardSettings
from photoz.train.pixels import Pixels
from photoz.train.sample import Labelled
from tests.shards_support import (
    every_image,
    files_table,
    make_shards,
    own_path,
    save_catalog,
    webdataset_samples,
    write_jpegs,
)
from tests.training_support import QUICK, drawn_shards, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Sixty JPEGs; shards of uneven sizes."""
    folder = tmp_path_factory.mktemp("stream")
    catalog = save_catalog(folder / "store", files_table(folder, write_jpegs(folder, 60)), folder)
    return make_shards(catalog, ShardSettings(samples_per_shard=7))


@pytest.fixture(scope="module")
def whole(shards: Artifact) -> np.ndarray:
    return np.asarray(every_image(open_shards(shards).load("train", "memory")))


def streamed(shards: Artifact, workers: int) -> StreamedImages:
    source = open_shards(shards)
    return StreamedImages(source._held_locations("train"), source.table("train"), source.image, source._held, workers)


@pytest.fixture(scope="module", params=[1, 3])
def images(request: pytest.FixtureRequest, shards: Artifact) -> Iterator[StreamedImages]:
    """The same images from so many worker processes."""
    found = streamed(shards, request.param)
    yield found
    found.close()


def test_a_split_that_is_read_each_time_is_the_one_that_is_kept(shards: Artifact, whole: np.ndarray) -> None:
    kept, read = (open_shards(shards).load("train", place) for place in ("memory", "never"))
    assert isinstance(read, StreamedImages) and len(read) == len(kept) == len(whole)
    assert read.table.equals(kept.table)
    assert np.array_equal(every_image(read), whole)


@settings(max_examples=15)
@given(
    batch_size=st.integers(3, 36), world=st.integers(1, 3), epoch=st.integers(0, 3), share=st.floats(0, 1),
    leave=st.integers(0, 12),
)  # fmt: skip
def test_batches_are_those_of_the_plan_wherever_it_starts_and_is_left(
    images: StreamedImages, whole: np.ndarray, batch_size: int, world: int, epoch: int, share: float, leave: int
) -> None:
    for rank in range(world):
        plan = EpochPlan(len(whole), batch_size, 1, rank, world)
        start = int(share * plan.steps)
        # Left in the middle of it, then taken up anew: no batch of the first may turn up in the second.
        for _, _ in zip(range(leave), images.batches(plan.batches(epoch)), strict=False):
            pass
        wanted = list(plan.batches(epoch, start))
        number = 0
        for number, found in enumerate(images.batches(wanted), 1):
            assert np.array_equal(found, whole[wanted[number - 1]])
        assert number == len(wanted)


def test_a_batch_stays_valid_for_two_iterations(images: StreamedImages, whole: np.ndarray) -> None:
    parts = np.array_split(np.random.default_rng(0).permutation(len(whole)), 8)
    before: tuple[np.ndarray, np.ndarray] | None = None
    for part, found in zip(parts, images.batches(parts), strict=True):
        if before is not None:
            time.sleep(0.02)  # the workers are ahead by now
            assert np.array_equal(before[0], whole[before[1]])
        before = np.asarray(found), part


def test_a_worker_that_is_killed_is_a_failure_that_passes(shards: Artifact) -> None:
    images, before = streamed(shards, 1), set(multiprocessing.active_children())
    stream = images.batches(np.array_split(np.arange(len(images)), 12))
    next(stream)
    (worker,) = set(multiprocessing.active_children()) - before
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(TryAgain, match="was killed"):
        list(stream)


def test_workers_end_with_the_images(shards: Artifact) -> None:
    before = set(multiprocessing.active_children())
    images = streamed(shards, 2)
    next(images.batches([np.arange(3)]))
    mine = set(multiprocessing.active_children()) - before
    assert len(mine) == 2
    images.close()
    for worker in mine:
        worker.join(20)
        assert worker.exitcode == 0


def test_a_tar_that_was_cut_short_is_named(tmp_path: Path) -> None:
    catalog = save_catalog(tmp_path / "store", files_table(tmp_path, write_jpegs(tmp_path, 20)), tmp_path)
    broken = make_shards(catalog, ShardSettings(samples_per_shard=20))
    images = streamed(broken, 1)
    os.truncate(own_path(broken, "train-000000.tar"), 4096)
    with pytest.raises(BadFormat, match=r"train-000000: the image at byte \d+: the tar ends after \d+ of"):
        list(images.batches([np.arange(len(images))]))
    with pytest.raises(BadFormat, match=r"train-000000: the image at byte \d+: the tar ends after \d+ of"):
        images.take_bchw(np.arange(len(images)))
    images.close()


def test_the_same_model_comes_from_images_kept_anywhere_or_nowhere(tmp_path: Path) -> None:
    shards = drawn_shards(tmp_path, 90)
    digests = {
        train(shards, replace(QUICK, decoded=place), name=place).payload_sha256 for place in ("memory", "disk", "never")
    }
    assert len(digests) == 1


def test_a_place_that_is_not_known_is_bad_input() -> None:
    with pytest.raises(BadInput, match="--decoded tape"):
        replace(QUICK, decoded="tape")


def losses_of(batches: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]) -> list[float]:
    """Two epochs of a small network of anyone's on (images (b, c, h, w), redshifts); the loss of each step."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 1)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    found = []
    for _ in range(2):
        for images_bchw, z_spec_b in batches():
            answer_b = network(torch.from_numpy(images_bchw).float() / 255)[:, 0]
            loss = nn.functional.mse_loss(answer_b, torch.from_numpy(z_spec_b).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


@pytest.mark.usefixtures("one_core")
def test_the_shards_train_through_plain_webdataset_to_the_same_losses(shards: Artifact) -> None:
    source = open_shards(shards)
    z_spec = source.table("train")["z_spec"].to_numpy()
    parts = np.array_split(np.arange(len(z_spec)), range(10, len(z_spec), 10))
    images = streamed(shards, 1)

    def through_photoz() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        return zip(images.batches(parts), (z_spec[part] for part in parts), strict=True)

    def through_webdataset() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        samples = list(webdataset_samples(shards, "train-*.tar", decode="rgb8"))
        for at in range(0, len(samples), 10):
            some = samples[at : at + 10]
            pixels = np.stack([sample["jpg"].transpose(2, 0, 1) for sample in some])
            yield pixels, np.array([sample["json"]["z_spec"] for sample in some])

    assert losses_of(through_webdataset) == losses_of(through_photoz)
    images.close()


def ours(shards: Artifact) -> tuple[ShardSet, Images]:
    source = open_shards(shards)
    return source, source.load("train", "memory")


def test_pixels_hand_out_images_with_their_own_redshifts(shards: Artifact, whole: np.ndarray) -> None:
    _, kept = ours(shards)
    z = np.arange(len(kept), dtype=np.float64)
    for images in (kept, streamed(shards, 1)):
        images.table = images.table.append_column("ebv", pa.array(z / 1000))
        pixels = Pixels(Labelled(images, z), CPU, ["ebv"]).measured(torch.arange(len(kept))[:, None])
        parts = list(EpochPlan(len(kept), 10).batches(0))
        for part, (batch, redshifts) in zip(parts, pixels.batches(iter(parts)), strict=True):
            assert np.array_equal(batch.images_bchw.numpy(), whole[part])
            assert redshifts.tolist() == batch.measured_bf.flatten().tolist() == part.tolist()
            np.testing.assert_allclose(batch.context_bk.numpy()[:, 0], part / 1000)
