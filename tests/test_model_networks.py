from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from photoz.errors import BadInput
from photoz.model import devices, menko2024
from photoz.model.bins import RedshiftBins
from photoz.model.devices import has_bfloat16
from photoz.model.familiarity import Familiarity
from photoz.model.light import Light, _asinh
from photoz.model.menko2024 import Menko2024
from photoz.model.names import APERTURE_CNN, MENKO2024, recipe_for
from photoz.model.network import Network
from photoz.model.redshift_model import run_network
from photoz.model.registry import ImageShape, build_network, design
from photoz.model.saved import weights_of
from photoz.model.scaling import InputScaling, stretch
from tests.training_support import batch_of, drawn_galaxies

BINS = RedshiftBins(0.0, 0.5, 30)
SHAPES = [
    (3, 64, 64, "uint8"),
    (3, 32, 32, "uint8"),
    (1, 16, 16, "uint8"),
    (5, 64, 64, "float32"),
    (5, 40, 56, "int16"),
]


def fresh_network(name: str, images: np.ndarray) -> Network:
    image = ImageShape(*images.shape[1:])
    torch.manual_seed(0)
    sizes = design(name, image, BINS, recipe_for(name, 5000))
    network = build_network(name, sizes, InputScaling.of(images))
    network.prepare(batch_of(images))
    return network.eval()


def test_menko2024_has_the_reference_projects_3346657_parameters() -> None:
    images, _ = drawn_galaxies(8, (3, 128, 128), "uint8")
    network = fresh_network(MENKO2024, images)
    assert sum(weight.numel() for weight in weights_of(network).values()) == 3_346_657
    assert network(*batch_of(images[:2])).shape == (2,)


@pytest.mark.parametrize(("channels", "height", "width", "dtype"), SHAPES)
@pytest.mark.parametrize("name", [APERTURE_CNN, MENKO2024])
def test_every_network_takes_any_channels_size_and_type(
    name: str, channels: int, height: int, width: int, dtype: str
) -> None:
    images, _ = drawn_galaxies(40, (channels, height, width), dtype)
    answer = fresh_network(name, images)(*batch_of(images))
    assert torch.isfinite(answer).all()
    assert answer.shape == ((40,) if name == MENKO2024 else (recipe_for(name, 5000).members, 40, BINS.count))


@pytest.mark.parametrize(("side_px", "stride", "kernel"), [(32, 1, 5), (64, 2, 5), (128, 4, 7)])
def test_a_model_of_before_the_stride_was_kept_is_built_as_it_was(side_px: int, stride: int, kernel: int) -> None:
    images, _ = drawn_galaxies(8, (3, side_px, side_px), "uint8")
    sizes = design(APERTURE_CNN, ImageShape(3, side_px, side_px), BINS, recipe_for(APERTURE_CNN, 5000))
    del sizes["stride"], sizes["reddening"]
    network = build_network(APERTURE_CNN, sizes, InputScaling.of(images))
    stem = network.trunk.stem
    assert (stem.stride, stem.kernel_size) == ((stride, stride), (kernel, kernel))
    assert not any("reddening" in name for name in weights_of(network))


def test_fluxes_are_stretched_by_asinh_to_float32s_precision() -> None:
    sizes = np.concatenate([[0.0], np.logspace(-12, 17, 2000)]).astype(np.float32)
    found = _asinh(torch.from_numpy(np.concatenate([sizes, -sizes])))
    expected = np.arcsinh(np.concatenate([sizes, -sizes]).astype(np.float64))
    np.testing.assert_allclose(found.numpy(), expected, rtol=3e-7)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_stretched_planes_are_those_of_the_scaling(dtype: str, channels_last: bool) -> None:
    images, _ = drawn_galaxies(90, (5, 31, 20), dtype)  # of which not all fit a core's cache
    scale = InputScaling.of(images)
    scaling = replace(scale, mean=(0.1, 0.2, 0.3, 0.4, 0.5), std=(0.5, 1.0, 1.5, 2.0, 2.5))
    if dtype == "float32":
        images[3, 1, 5:7] = np.nan  # masked: it counts as sky
    stored = torch.from_numpy(images)
    if channels_last:
        stored = stored.contiguous(memory_format=torch.channels_last)
    found = Light(scaling).stretched(stored)
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)
    sky, noise, mean, std = (
        np.array(one)[:, None, None] for one in (scaling.sky, scaling.noise, scaling.mean, scaling.std)
    )
    filled = np.where(np.isnan(images), sky, images.astype(np.float64))
    np.testing.assert_allclose(found, (stretch(filled, sky, noise, dtype) - mean) / std, atol=3e-5, rtol=1e-5)


def test_light_undoes_an_asinh_stretch_of_the_intensity() -> None:
    scaling = InputScaling("uint8", (0.0,) * 3, (255.0,) * 3, (0.1,) * 3, (0.1,) * 3)
    light = Light(scaling, (4.0, 8.0))
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    images[0] //= 64  # faint ones, too
    shown = images / 255.0
    intensity = shown.mean(1, keepdims=True)
    as_is, *undone = light.linear(light.signal(torch.from_numpy(images)))
    np.testing.assert_allclose(as_is, shown, atol=1e-6)
    for softening, found in zip((4.0, 8.0), undone, strict=True):
        argument = np.maximum(softening * intensity, 1e-12)
        np.testing.assert_allclose(found, shown * np.sinh(argument) / argument, rtol=3e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_network_leaves_its_images_as_they_are(dtype: str) -> None:
    images, _ = drawn_galaxies(40, (3, 32, 32), dtype)
    as_float = images.astype(np.float32)
    network = fresh_network(APERTURE_CNN, images)
    answers = [network(*batch_of(one)) for one in (images, as_float, as_float)]
    assert torch.equal(answers[0], answers[2]) and torch.equal(answers[1], answers[2])
    assert np.array_equal(as_float, images)


@pytest.mark.parametrize("name", [APERTURE_CNN, MENKO2024])
def test_batches_asked_at_once_give_the_same_bits_in_the_same_order(name: str) -> None:
    images, _ = drawn_galaxies(90, (3, 32, 32), "uint8")
    network, threads = fresh_network(name, images), torch.get_num_threads()
    batches = [batch_of(part) for part in np.array_split(images, 7)]
    try:
        torch.set_num_threads(1)
        one_by_one, at_once = run_network(network, batches), run_network(network, batches, at_once=3)
    finally:
        torch.set_num_threads(threads)
    assert len(at_once.answer) == 90
    assert np.array_equal(one_by_one.answer, at_once.answer)
    assert np.array_equal(one_by_one.features_bf, at_once.features_bf)


def test_photometry_does_not_change_when_an_image_is_turned() -> None:
    images, _ = drawn_galaxies(6, (3, 33, 33), "uint8")
    network = fresh_network(APERTURE_CNN, images)
    upright, turned = (batch_of(one) for one in (images, np.rot90(images, 1, (2, 3)).copy()))
    photometry = network.photometry.features
    same = network.features(upright)[:, :photometry], network.features(turned)[:, :photometry]
    torch.testing.assert_close(*same, atol=1e-3, rtol=1e-3)


def test_what_was_measured_once_goes_with_an_image_in_all_orientations() -> None:
    images, _ = drawn_galaxies(6, (3, 33, 33), "uint8")
    network = fresh_network(APERTURE_CNN, images).eval()
    nn.init.normal_(network.get_submodule("head.1").weight, std=0.05)  # which starts at 0, and lets nothing through
    upright, turned = (batch_of(one) for one in (images, np.rot90(images, 1, (2, 3)).copy()))
    measured = network.measure(upright)
    assert measured.measured_bf.shape == (6, network.measurements)
    assert torch.equal(network(*measured), network(*upright))
    torch.testing.assert_close(
        network(*turned._replace(measured_bf=measured.measured_bf)), network(*turned), atol=1e-3, rtol=1e-3
    )
    assert network.measure(measured) is measured
    assert not torch.allclose(network(*measured._replace(measured_bf=measured.measured_bf + 1)), network(*upright))


def last_features(network: Network, ebv: list[float]) -> list[float]:
    images = np.zeros((len(ebv), 3, 32, 32), np.uint8)
    found: list[float] = network.features(batch_of(images, np.array(ebv)))[:, -1].tolist()
    return found


def test_the_default_network_is_told_the_reddening_in_units_of_its_scatter_in_training() -> None:
    images, _ = drawn_galaxies(5, (3, 32, 32), "uint8")
    network = fresh_network(APERTURE_CNN, images)
    assert network.used_context == ()
    network.prepare(batch_of(images, np.array([0.02, 0.04, np.nan, 0.06, np.nan])))
    assert network.used_context == ("ebv",)
    scatter = np.std([0.02, 0.04, 0.06], ddof=1)
    # Where it is unknown it counts as the mean, and absurd ones stay bounded.
    found = last_features(network, [0.04, 0.05, np.nan, 40.0, -40.0])
    np.testing.assert_allclose(found, [0, 0.01 / scatter, 0, 6, -6], atol=1e-5)


@pytest.mark.parametrize("ebv", [np.full(8, np.nan), np.full(8, 0.03)])
def test_a_reddening_that_training_galaxies_do_not_tell_makes_no_difference(ebv: np.ndarray) -> None:
    images, _ = drawn_galaxies(8, (3, 32, 32), "uint8")
    network = fresh_network(APERTURE_CNN, images)
    network.prepare(batch_of(images, ebv))
    assert network.used_context == ()
    assert last_features(network, [0.01, 0.5, np.nan]) == [0, 0, 0]


def test_absurd_pixels_reach_the_head_as_bounded_numbers() -> None:
    images, _ = drawn_galaxies(40, (5, 32, 32), "float32")
    network = fresh_network(APERTURE_CNN, images)
    strange = images[:3].copy()
    strange[0, 0, 3, 3] = np.nan
    strange[1] = 1e30
    strange[2] = -np.inf
    assert torch.isfinite(network(*batch_of(strange))).all()


def test_scaling_measures_sky_and_noise_below_the_galaxies() -> None:
    images, _ = drawn_galaxies(60, (3, 48, 48), "float32")
    found = InputScaling.of(images)
    np.testing.assert_allclose(found.sky, 12, atol=1.5)
    np.testing.assert_allclose(found.noise, 2, atol=0.6)
    assert InputScaling.from_json(found.to_json()) == found


def test_a_channel_without_any_signal_is_refused() -> None:
    images, _ = drawn_galaxies(10, (3, 16, 16), "uint8")
    images[:, 1] = 7
    with pytest.raises(BadInput, match="channel 1 of the training images holds one constant value"):
        InputScaling.of(images)


def test_an_unknown_network_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(BadInput, match=r"'resnet'.*aperture-cnn, menko2024"):
        recipe_for("resnet", 100)


def test_images_too_small_for_a_network_are_refused() -> None:
    with pytest.raises(BadInput, match="12x12"):
        design(APERTURE_CNN, ImageShape(3, 12, 12), BINS, recipe_for(APERTURE_CNN, 100))


def test_familiarity_is_1_at_the_99th_percentile_and_large_for_strangers() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(8, 8))
    train, val = rng.normal(size=(500, 8)) @ mixing, rng.normal(size=(500, 8)) @ mixing
    found = Familiarity.of(train, val)
    assert np.mean(found.score(val) > 1) == pytest.approx(0.01, abs=0.005)
    assert found.score(val + 30).min() > 3


def test_a_cpus_bfloat16_is_known_by_what_the_system_says_of_it() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("nothing here says what the CPU has")
    assert has_bfloat16("cpu") == any(flag in cpuinfo.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def test_redshifts_are_float32_where_convolutions_are_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda device_type: True)
    images, _ = drawn_galaxies(200, (3, 32, 32), "uint8")
    network = fresh_network(MENKO2024, images)
    batch = batch_of(images)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    network.train()(*batch)  # statistics with which images differ
    convolved = []

    def noted(*arguments: object, **options: object) -> torch.Tensor:
        convolved.append(conv2d(*arguments, **options).dtype)
        return conv2d(*arguments, **options)

    conv2d = menko2024.functional.conv2d
    with monkeypatch.context() as patched:
        patched.setattr(menko2024.functional, "conv2d", noted)
        answer = run_network(network, [batch]).answer
    assert convolved == [torch.bfloat16] * 13
    rounded = torch.from_numpy(answer).to(torch.bfloat16).double().numpy()
    assert len(np.unique(answer)) > 190 and (answer != rounded).mean() > 0.9
    exact = network(*batch).detach().numpy()
    assert np.abs(answer - exact).mean() < 0.2 * exact.std()


def test_menko2024_is_its_layers_one_after_the_other() -> None:
    images, _ = drawn_galaxies(40, (3, 40, 32), "uint8")
    network, batch = fresh_network(MENKO2024, images), batch_of(images)
    assert isinstance(network, Menko2024)
    for layer in network.convolutions:  # as after some training, and a convolution's bias counts, too
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    network.train()
    stretched = network.light.stretched(batch.images_bchw)
    np.testing.assert_allclose(
        network.features(batch).detach().numpy(),
        network.convolutions(stretched).mean((2, 3)).detach().numpy(),
        atol=1e-4,
    )
    network.eval()
    for layer in network.convolutions:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.bias, std=0.1)
    expected = network.convolutions(stretched).mean((2, 3)).detach().numpy()
    np.testing.assert_allclose(network.features(batch).detach().numpy(), expected, rtol=1e-3, atol=1e-4)


def test_the_default_network_computes_in_float32_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = drawn_galaxies(40, (3, 32, 32), "uint8")
    network = fresh_network(APERTURE_CNN, images)
    found = run_network(network, [batch_of(images)])
    monkeypatch.setattr(devices, "has_bfloat16", lambda device_type: True)
    with_bfloat16 = run_network(network, [batch_of(images)])
    assert np.array_equal(found.answer, with_bfloat16.answer)
    assert np.array_equal(found.features_bf, with_bfloat16.features_bf)
