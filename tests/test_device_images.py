"""Images on their way to a device: copied, kept there, or decoded there. What needs no GPU; see test_gpu.py."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from photoz.artifacts import Artifact
from photoz.data import ImageFormat, open_shards
from photoz.data.batches import fits_on, on_device
from photoz.data.decode import as_bchw
from photoz.data.gpu_jpeg import Jpegs, cpu_decoder, decoded_by, faster, gpu_decoder, torchvision_decoder
from photoz.errors import BadFormat
from photoz.infer.predict import are_blank
from photoz.shards import ShardSettings
from photoz.train.pixels import Pixels
from photoz.train.sample import Labelled
from tests.shards_support import every_image, files_table, make_shards, save_catalog, write_jpegs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("device")
    catalog = save_catalog(folder / "store", files_table(folder, write_jpegs(folder, 40)), folder)
    return make_shards(catalog, ShardSettings(samples_per_shard=7))


@pytest.fixture(scope="module")
def whole(shards: Artifact) -> np.ndarray:
    return np.asarray(every_image(open_shards(shards).load("train", "memory")))


@pytest.fixture(scope="module")
def jpegs(shards: Artifact) -> Jpegs:
    source = open_shards(shards)
    return [member for name in source.shard_names("train") for member in source.members(name)]


def image_of(shards: Artifact) -> ImageFormat:
    return open_shards(shards).image


@pytest.mark.parametrize("place", ["memory", "device"])
def test_images_that_stay_on_the_device_are_those_of_the_shards(
    place: str, shards: Artifact, whole: np.ndarray
) -> None:
    images = open_shards(shards).load("train", place)  # type: ignore[arg-type]
    pixels = Pixels(Labelled(images, np.arange(len(whole)) / 100), CPU, resident=True)
    some = np.array([3, 0, 3])
    images_bchw, z_spec_b = pixels.take(some)
    np.testing.assert_array_equal(images_bchw.numpy(), whole[some])
    np.testing.assert_allclose(z_spec_b.numpy(), some / 100)
    np.testing.assert_array_equal(pixels.take(np.arange(len(whole)))[0].numpy(), whole)
    assert images_bchw.is_contiguous(memory_format=torch.channels_last)


def test_batches_come_in_order(whole: np.ndarray) -> None:
    found = list(on_device(iter([whole[:5], whole[5:6], whole[6:]]), CPU))
    assert [len(batch) for batch in found] == [5, 1, len(whole) - 6]
    np.testing.assert_array_equal(torch.cat(found).numpy(), whole)


def test_nothing_is_kept_on_a_cpu_as_on_a_gpu(shards: Artifact) -> None:
    assert not fits_on(CPU, 1)
    assert gpu_decoder(image_of(shards), CPU, lambda: pytest.fail("measured")) is None


def test_a_decoder_is_used_where_it_is_faster_and_sees_the_same(
    shards: Artifact, jpegs: Jpegs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    image = image_of(shards)
    known = cpu_decoder(image, CPU)(jpegs)
    wins: dict[str, tuple[Callable[[Jpegs], torch.Tensor], int]] = {
        "GPU": (lambda some: known[: len(some)], 1),
        "CPU": (lambda some: cpu_decoder(image, CPU)(some), 1000),  # a thousand cores do the same
        "apart": (lambda some: 255 - known[: len(some)], 1),  # a negative
        "says": (broken, 1),
    }
    for words, (decode, cores) in wins.items():
        caplog.clear()
        assert faster(decode, jpegs, image, CPU, cores) == (words == "GPU")
        assert words in caplog.text


def broken(_jpegs: Jpegs) -> torch.Tensor:
    raise ValueError("out of order")


def test_what_the_decoder_on_the_device_refuses_is_decoded_here_or_named(jpegs: Jpegs, whole: np.ndarray) -> None:
    found = decoded_by(broken, jpegs[:4], lambda: whole[:4], CPU)
    np.testing.assert_array_equal(found.numpy(), whole[:4])

    def named() -> np.ndarray:
        raise BadFormat("train-000000: the image at byte 512: broken")

    with pytest.raises(BadFormat, match="byte 512"):
        decoded_by(broken, jpegs[:4], named, CPU)


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_torchvision_sees_what_simplejpeg_sees(shards: Artifact, jpegs: Jpegs, whole: np.ndarray) -> None:
    pytest.importorskip("torchvision", reason="torchvision is an extra, and does not go with torch's CPU wheel")
    decode = torchvision_decoder(image_of(shards), CPU)
    assert decode
    found = decode(jpegs)
    assert found.shape == whole.shape
    assert np.abs(found.numpy().astype(int) - whole).mean() < 0.5
    with pytest.raises(ValueError, match="expected"):
        torchvision_decoder(ImageFormat(**vars(image_of(shards)) | {"height": 8}), CPU)(jpegs)  # type: ignore[misc]
    with pytest.raises(ValueError):
        decode([jpegs[0], jpegs[1][:200]])


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
    assert are_blank(torch.from_numpy(images_bchw)).tolist() == [False, True, False, True]
    last = torch.from_numpy(
        as_bchw(
            images_bchw.transpose(0, 2, 3, 1),
            ImageFormat(format="jpg", channels=3, height=5, width=5, dtype="uint8", source="files"),
        )
    )
    assert are_blank(last).tolist() == [False, True, False, True]
