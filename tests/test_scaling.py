"""The unit of the pixels makes no difference: images times 10^k are trained on and predicted as the images are."""

import io
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from photoz.artifacts import Artifact, Destination, Draft, Ref, load
from photoz.data.layout import ImageFormat
from photoz.errors import BadFormat, BadInput
from photoz.evaluate.stamps import colours
from photoz.images.files import FileImages, ImageFolder
from photoz.images.picture import NoCutout
from photoz.infer import InferSettings
from photoz.model.bins import RedshiftBins
from photoz.model.light import Light
from photoz.model.names import APERTURE_CNN, MENKO2024, recipe_for
from photoz.model.network import Network
from photoz.model.registry import ImageShape, build_network, design
from photoz.model.scaling import InputScaling
from photoz.shards import ShardSettings
from tests.shards_support import files_table, make_shards, save_catalog
from tests.training_support import QUICK, batch_of, drawn_galaxies, infer, shards_of, train

pytestmark = pytest.mark.usefixtures("one_core")

BINS = RedshiftBins(0.0, 0.5, 40)
SHAPE = (3, 16, 16)
COLUMNS = ["z_phot", "z_mean", "z_mode", "z_lo68", "z_hi68", "z_lo95", "z_hi95", "ood_score"]
QUICKEST = replace(QUICK, epochs=1, bins=20)


def prepared(name: str, images: np.ndarray) -> Network:
    """A network with the same weights each time, made for these images as training makes it."""
    torch.manual_seed(0)
    image = ImageShape(*images.shape[1:])
    network = build_network(name, design(name, image, BINS, recipe_for(name, len(images))), InputScaling.of(images))
    network.prepare(batch_of(images))
    return network.eval()


@lru_cache(maxsize=4)
def features(name: str, pixels: bytes) -> np.ndarray:
    """What the head of a network made for these float32 images sees of some of them; an untrained head says nothing."""
    images = np.frombuffer(pixels, np.float32).reshape(-1, *SHAPE).copy()
    with torch.inference_mode():
        return prepared(name, images).features(batch_of(images[:6])).numpy()


@pytest.mark.parametrize("name", [APERTURE_CNN, MENKO2024, "torchvision:resnet18"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(power=st.integers(-20, 20), integers=st.booleans())
def test_a_network_sees_the_same_in_images_times_a_power_of_ten(name: str, power: int, integers: bool) -> None:
    if name.startswith("torchvision"):
        pytest.importorskip("torchvision", reason="torchvision is an extra, and does not go with torch's CPU wheel")
    images, _ = drawn_galaxies(24, SHAPE, "float32")
    if integers:
        images = np.rint(images).astype(np.int16).astype(np.float32)
    scaled = (images.astype(np.float64) * 10.0**power).astype(np.float32)
    expected, found = features(name, images.tobytes()), features(name, scaled.tobytes())
    assert np.isfinite(found).all() and found.std(axis=0).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", [APERTURE_CNN, MENKO2024])
def test_a_network_sees_the_same_in_real_images_in_cgs_as_in_counts(name: str, shared_data: Path) -> None:
    files = sorted((shared_data / "field_cases" / "18-physical-units" / "cgs" / "im").iterdir())
    cgs = np.stack([np.load(path) for path in files])
    counts = (cgs.astype(np.float64) * 1e30).astype(np.float32)
    with torch.inference_mode():
        expected, found = (prepared(name, these).features(batch_of(these[:6])).numpy() for these in (counts, cgs))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert found.std(axis=0).max() > 0


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, dict[str, pa.Array]]:
    images, z = drawn_galaxies(60, SHAPE, "float32")
    return np.rint(images).astype(np.float32), {"z_spec": pa.array(z)}


def predicted(
    folder: Path, images: np.ndarray, columns: dict[str, pa.Array], name: str = APERTURE_CNN
) -> dict[str, np.ndarray]:
    """Shards, a model trained on them, and what it predicts for its own test galaxies."""
    shards = shards_of(folder, images, "made", **columns)
    predictions = infer(train(shards, replace(QUICKEST, model=name)), shards)
    table = pa.concat_tables([predictions.table(file) for file in predictions.names()])
    pdf_bz = table["pdf"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return {name: table[name].to_numpy() for name in [*COLUMNS, "flags"]} | {"pdf": pdf_bz}


@pytest.fixture(scope="module")
def in_counts(
    drawn: tuple[np.ndarray, dict[str, pa.Array]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    images, columns = drawn
    found = predicted(tmp_path_factory.mktemp("counts"), images, columns)
    assert len(np.unique(found["z_phot"])) > 3
    return found


@pytest.mark.parametrize("factor", [2.0**-66, 2.0**66])
def test_images_times_a_power_of_two_give_the_same_predictions_to_the_bit(
    factor: float, drawn: tuple[np.ndarray, dict[str, pa.Array]], in_counts: dict[str, np.ndarray], tmp_path: Path
) -> None:
    found = predicted(tmp_path, drawn[0] * np.float32(factor), drawn[1])
    for column, values in in_counts.items():
        np.testing.assert_array_equal(found[column], values, column)


def test_int16_images_give_the_same_predictions_as_their_values_in_float32(
    drawn: tuple[np.ndarray, dict[str, pa.Array]], in_counts: dict[str, np.ndarray], tmp_path: Path
) -> None:
    found = predicted(tmp_path, drawn[0].astype(np.int16), drawn[1])
    for column, values in in_counts.items():
        np.testing.assert_array_equal(found[column], values, column)


def test_images_in_cgs_give_the_redshifts_of_the_same_images_in_counts(
    drawn: tuple[np.ndarray, dict[str, pa.Array]], in_counts: dict[str, np.ndarray], tmp_path: Path
) -> None:
    found = predicted(tmp_path, drawn[0] * np.float32(3.631e-20), drawn[1])
    for column in COLUMNS:
        np.testing.assert_allclose(found[column], in_counts[column], rtol=0.02, atol=2e-3, err_msg=column)


def test_a_regression_networks_predictions_are_the_same_too(
    drawn: tuple[np.ndarray, dict[str, pa.Array]], tmp_path: Path
) -> None:
    images = drawn[0][:, :1]
    plain = predicted(tmp_path / "a", images, drawn[1], MENKO2024)
    scaled = predicted(tmp_path / "b", images * np.float32(2.0**-66), drawn[1], MENKO2024)
    for column, values in plain.items():
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(scaled[column], values, column)


@pytest.mark.parametrize("factor", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize(
    ("jitter", "said"),
    [(0.0, r"holds one constant value, 7\S*; drop it"), (3e-7, r"varies by only \S+ on 7\S*; sub")],
)
def test_a_channel_is_constant_by_its_own_scale(factor: float, jitter: float, said: str) -> None:
    images, _ = drawn_galaxies(10, SHAPE, "float32")
    assert InputScaling.of(images * np.float32(factor)).noise[0] == pytest.approx(
        InputScaling.of(images).noise[0] * factor, rel=1e-5
    )
    images[:, 1] = 7 * (1 + jitter * np.random.default_rng(0).normal(size=images[:, 1].shape))
    with pytest.raises(BadInput, match=f"channel 1 of the training images {said}"):
        InputScaling.of(images * np.float32(factor))


def test_faint_signal_on_a_bright_sky_is_not_called_constant_and_what_is_said_helps() -> None:
    images = 2e6 + np.random.default_rng(0).normal(size=(10, 3, 16, 16)).astype(np.float32)
    with pytest.raises(BadInput, match=r"channel 0 of .* varies by only 0\.99\d on 2e\+06; subtract the sky first"):
        InputScaling.of(images)
    assert InputScaling.of(images - np.float32(2e6)).noise == pytest.approx((1, 1, 1), rel=0.1)


@pytest.mark.parametrize("factor", [1e-40, 1e-43, 2e36])
def test_images_at_the_ends_of_float32_are_refused_with_what_to_do(factor: float) -> None:
    images = (drawn_galaxies(10, SHAPE, "float32")[0].astype(np.float64) * factor).astype(np.float32)
    with pytest.raises(BadInput, match=r"too large or small for float32.*multiply the images"):
        InputScaling.of(images)


def test_images_as_small_as_nanojanskys_in_cgs_are_measured() -> None:
    images, _ = drawn_galaxies(10, SHAPE, "float32")
    found, plain = InputScaling.of(images * np.float32(1e-35)), InputScaling.of(images)
    np.testing.assert_allclose(found.mean, plain.mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.std, plain.std, rtol=1e-3)


def test_masked_pixels_do_not_count_in_the_scaling_and_a_channel_of_them_is_refused() -> None:
    images, _ = drawn_galaxies(40, SHAPE, "float32")
    plain = InputScaling.of(images)
    images[:, :, 0, 0], images[:, :, 0, 1] = np.nan, np.inf
    np.testing.assert_allclose(InputScaling.of(images).noise, plain.noise, rtol=0.05)
    images[:, 2] = np.nan
    with pytest.raises(BadInput, match="channel 2 of the training images holds no finite value"):
        InputScaling.of(images)


def test_pixels_that_overflow_in_float32_count_as_very_bright_ones() -> None:
    images, _ = drawn_galaxies(10, SHAPE, "float32")
    light = Light(InputScaling.of(images * np.float32(1e-20)))
    huge = torch.tensor([[[[1e20, -3e38]]] * 3])
    assert light.signal(huge[0].expand(1, 3, 1, 2)).tolist()[0][0][0] == [pytest.approx(1e18), pytest.approx(-1e18)]
    assert torch.isfinite(light.stretched(huge[0].expand(1, 3, 1, 2))).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("noise", value) for value in (0.0, -1.0, np.nan, np.inf, 1e-40)],
        *[("std", value) for value in (0.0, np.nan)],
        *[("sky", value) for value in (np.nan, -np.inf)],
        *[("mean", value) for value in (np.nan, np.inf)],
    ],
)
def test_a_stored_scaling_that_nothing_can_be_divided_by_is_refused(name: str, value: float) -> None:
    stored = InputScaling.of(drawn_galaxies(10, SHAPE, "float32")[0]).to_json()
    assert InputScaling.from_json(stored).to_json() == stored
    stored[name][1] = value
    with pytest.raises(BadFormat, match=f"normalisation in model.json: {name} is .*train the model again"):
        InputScaling.from_json(stored)


@pytest.mark.parametrize(("value", "words"), [(1e-60, "too small"), (1e-39, "too small"), (1e300, "too large")])
def test_a_stamp_that_float32_can_t_hold_is_a_failure_that_says_so(value: float, words: str) -> None:
    stamp = drawn_galaxies(1, SHAPE, "float64")[0][0] * value
    image = ImageFormat(format="npy", channels=3, height=16, width=16, dtype="float32", source="files")
    files = FileImages(ImageFolder(Path(), None, None), image)
    with pytest.raises(NoCutout, match=f"out_of_range: .* {words} for float32; multiply"):
        files.as_npy(npy(stamp))


def npy(array: np.ndarray) -> bytes:
    """A file as np.save writes it."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_model_is_refused_on_images_that_state_another_unit(chain: dict[str, Artifact], tmp_path: Path) -> None:
    shards = chain["shards"]
    model = chain[APERTURE_CNN]
    described = json.loads(model.read("model.json"))
    assert "unit" not in described["normalisation"]
    described["normalisation"]["unit"] = "nmgy"
    trained = again(model, "nmgy", **{"model.json": json.dumps(described).encode()})
    assert infer(trained, shards, name="unit-unknown").summary["galaxies"]
    folder = tmp_path / "fits"
    folder.mkdir()
    for number, image in enumerate(drawn_galaxies(4, SHAPE, "float32")[0]):
        fits.PrimaryHDU(image, fits.Header({"BUNIT": "Jy"})).writeto(folder / f"{number}.fits")
    table = files_table(folder, [f"{number}.fits" for number in range(4)])
    in_jansky = make_shards(save_catalog(tmp_path / "store", table, folder), ShardSettings(images="files", axes="chw"))
    with pytest.raises(BadInput, match="was trained on pixels in 'nmgy', shards/made@v1 states 'Jy'"):
        infer(trained, in_jansky)


@pytest.mark.parametrize("power", [-20, 0, 20])
def test_stamp_colours_of_the_baseline_have_no_unit_even_without_noise(power: int) -> None:
    images = np.maximum(drawn_galaxies(4, SHAPE, "float32")[0] - 30, 0)  # most pixels are exactly 0
    np.testing.assert_allclose(colours(images * np.float32(10.0**power)), colours(images), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def chain(
    drawn: tuple[np.ndarray, dict[str, pa.Array]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Artifact]:
    images, columns = drawn
    shards = shards_of(tmp_path_factory.mktemp("chain"), images, "made", **columns)
    models = {name: train(shards, replace(QUICKEST, model=name), name) for name in (APERTURE_CNN, MENKO2024)}
    return {"shards": shards} | models


def with_weights(model: Artifact, name: str, **changed: float) -> Artifact:
    """The model again, some of its weights filled with a number."""
    weights = safetensors.torch.load(model.read("weights.safetensors"))
    for key, value in changed.items():
        weights[key.replace("__", ".")].fill_(value)
    return again(model, name, **{"weights.safetensors": safetensors.torch.save(weights)})


def again(model: Artifact, name: str, **changed: bytes) -> Artifact:
    """The model published once more, some of its files replaced."""
    with Draft.begin(Destination(model.store, name), kind="model", recipe=1, settings={"name": name}) as draft:
        for file in model.names():
            draft.put(file, changed[file] if file in changed else model.read(file))
        draft.commit({})
    return load(model.store, Ref("model", name))


def test_a_model_with_nan_among_its_weights_is_refused(chain: dict[str, Artifact]) -> None:
    model = with_weights(chain[MENKO2024], "nan", dense__bias=np.nan)
    with pytest.raises(BadFormat, match=r"dense\.bias holds NaN or infinite numbers"):
        infer(model, chain["shards"])


@pytest.mark.parametrize(
    ("network", "changed"),
    [
        (MENKO2024, {"dense__weight": 3e38, "dense__bias": 3e38}),  # an infinite redshift, clipped to the last bin
        (APERTURE_CNN, {"head__1__weight": 3e38, "head__1__bias": 3e38}),  # infinite logits: NaN in the PDF
        (APERTURE_CNN, {"trunk__stem__weight": 3e38}),
    ],
)
def test_a_network_whose_answer_is_not_finite_is_an_error_that_counts_and_names_galaxies(
    network: str, changed: dict[str, float], chain: dict[str, Artifact]
) -> None:
    model = with_weights(chain[network], "-".join(changed).replace("__", "."), **changed)
    with pytest.raises(
        BadInput, match=r"test-000000: the model's \w+ is NaN or infinite for 12 of 12 galaxies, first table/"
    ):
        infer(model, chain["shards"])


def test_images_of_huge_finite_values_are_predicted_with_finite_numbers_and_flagged(
    chain: dict[str, Artifact], tmp_path: Path
) -> None:
    images = drawn_galaxies(5, SHAPE, "float32")[0]
    images[2] *= np.float32(1e36)
    shards = shards_of(tmp_path, images, "huge")
    for network in (APERTURE_CNN, MENKO2024):
        predictions = infer(chain[network], shards, InferSettings(device="cpu", split="all"), network)
        table = pa.concat_tables([predictions.table(file) for file in predictions.names()])
        for column in COLUMNS:
            assert np.isfinite(table[column].to_numpy()).all()
