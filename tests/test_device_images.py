"""Images on their way to a device: copied, or kept there. What needs no GPU; see test_gpu.py."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from photoz.artifacts import Artifact
from photoz.data import open_shards
from photoz.data.batches import fits_on, on_device, picked
from photoz.data.image_set import DecodedImages, Place
from photoz.infer.predict import are_blank
from photoz.shards import ShardSettings
from photoz.train.pixels import Pixels
from photoz.train.sample import load_labelled
from tests.shards_support import every_image, files_table, make_shards, save_catalog, write_jpegs
from tests.training_support import drawn_shards

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["jpg", "npy"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Several shards of uneven sizes."""
    folder = tmp_path_factory.mktemp("device")
    if request.param == "npy":
        return drawn_shards(folder, 40, (5, 16, 24), "float32", samples_per_shard=7)
    catalog = save_catalog(folder / "store", files_table(folder, write_jpegs(folder, 40)), folder)
    return make_shards(catalog, ShardSettings(samples_per_shard=7))


@pytest.mark.parametrize("there", [True, False])
def test_images_that_stay_on_the_device_are_those_of_the_shards(there: bool, shards: Artifact) -> None:
    source = open_shards(shards)
    whole = np.asarray(every_image(source.load("train", "memory")))
    labelled = load_labelled(source, "train", "memory", CPU if there else None)
    assert len(labelled) == len(labelled.images) == source.count("train") == len(whole)
    pixels = Pixels(labelled, CPU, ())
    parts = [np.array([3, 0, 3]), np.arange(len(whole)), np.arange(9)[::2]]
    for part, (batch, z_spec_b) in zip(parts, pixels.batches(parts), strict=True):
        np.testing.assert_array_equal(batch.images_bchw.numpy(), whole[part])
        np.testing.assert_allclose(z_spec_b.numpy(), labelled.z_spec[part], rtol=1e-6)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_images_picked_for_a_gpu_are_those_that_are_taken(place: Place, shards: Artifact) -> None:
    images = open_shards(shards).load("train", place)
    assert isinstance(images, DecodedImages)
    parts = [np.array([3, 0, 3]), np.arange(len(images)), np.arange(9)[::2]]
    for part, found in zip(parts, picked(images, parts), strict=True):
        expected = torch.from_numpy(images.take_bchw(part))
        assert torch.equal(found, expected) and found.stride() == expected.stride()


def test_batches_come_in_order() -> None:
    whole = np.random.default_rng(0).integers(0, 255, (20, 3, 8, 8), np.uint8)
    found = list(on_device(iter([whole[:5], whole[5:6], whole[6:]]), CPU))
    assert [len(batch) for batch in found] == [5, 1, 14]
    np.testing.assert_array_equal(torch.cat(found).numpy(), whole)


def test_nothing_is_kept_on_a_cpu_as_on_a_gpu() -> None:
    assert not fits_on(CPU, 1)


@given(npst.arrays(np.uint8, (6, 2, 3, 4), elements=st.sampled_from([7, 7, 7, 9])), st.sets(st.integers(0, 5)))
def test_a_blank_image_has_one_value(images_bchw: np.ndarray, made_blank: set[int]) -> None:
    images_bchw[list(made_blank)] = 3
    expected = [len(np.unique(image)) == 1 for image in images_bchw]
    assert are_blank(torch.from_numpy(images_bchw)).tolist() == expected


def test_an_image_without_a_number_is_blank_and_one_with_a_hole_is_not() -> None:
    images_bchw = np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32)
    images_bchw[1] = np.nan
    images_bchw[2, :, :2] = np.nan
    images_bchw[3] = 1.5
    for order in (torch.contiguous_format, torch.channels_last):
        found = are_blank(torch.from_numpy(images_bchw).contiguous(memory_format=order))
        assert found.tolist() == [False, True, False, True]
