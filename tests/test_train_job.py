import json
import platform
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
import torch

from photoz.artifacts import Artifact, Destination
from photoz.errors import BadInput
from photoz.train import TrainSettings, train_model
from tests.training_support import QUICK, drawn_galaxies, drawn_shards, train

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return drawn_shards(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def model(shards: Artifact) -> Artifact:
    return train(shards)


def test_a_model_holds_weights_description_history_timings_and_card(model: Artifact) -> None:
    assert set(model.names()) >= {"weights.safetensors", "model.json", "history.parquet", "timings.parquet", "card.md"}
    described = json.loads(model.read("model.json"))
    assert described["format_version"] == 1
    assert described["image"] == {"channels": 3, "height": 24, "width": 24}
    assert described["redshift_bins"]["count"] == QUICK.bins
    weights = safetensors.numpy.load(model.read("weights.safetensors"))
    assert sum(array.size for array in weights.values()) == described["parameters"]
    assert model.summary["galaxies"] == {"train": 120, "val": 40}


def test_history_has_a_row_an_epoch_and_no_wall_clock(model: Artifact) -> None:
    history, timings = (model.table(f"{name}.parquet").to_pandas() for name in ("history", "timings"))
    assert history["epoch"].tolist() == timings["epoch"].tolist() == [1, 2]
    expected = {"train_loss", "val_loss", "val_crps", "val_sigma_mad", "val_bias", "val_outliers", "learning_rate"}
    assert expected < set(history)
    assert not [name for name in history if "second" in name]
    assert (timings["train_images_per_s"] > 0).all()
    assert model.entry("timings.parquet").volatile


def test_the_kept_epoch_is_the_one_with_the_least_crps(model: Artifact) -> None:
    assert model.summary["best_epoch"] == 1 + int(model.table("history.parquet").to_pandas()["val_crps"].argmin())


def test_the_card_names_the_shards_the_counts_and_the_limits(model: Artifact, shards: Artifact) -> None:
    card = model.read("card.md").decode()
    for words in (shards.payload_sha256[:16], "120 galaxies to train on", "## Limits", "photoz-job infer", "sigma_mad"):
        assert words in card


def test_card_and_summary_name_the_device_and_the_model_s_digest_does_not_depend_on_it(model: Artifact) -> None:
    device = f"CPU {cpu_model()}, 1 thread, torch {torch.__version__}"
    assert f"\nDevice: {device}.\n" in model.read("card.md").decode()
    assert model.summary["computed_on"] == device
    assert model.entry("card.md").volatile


def cpu_model() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.machine()


def test_the_card_tells_which_artifact_it_is_and_by_what_its_epoch_was_kept(model: Artifact) -> None:
    card = model.read("card.md").decode()
    assert f"`model/{model.ref.name}` with fingerprint `{model.manifest.fingerprint}`" in card
    assert f"epoch {model.summary['best_epoch']} of 2, the one with the least `val_crps`" in card
    assert f"--model model/{model.ref.name}@vN" in card


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    shards: Artifact, model: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="photoz.train"):
        again = train(shards, name="again")
    assert f"kept epoch {again.summary['best_epoch']} of 2, the least val_crps: val sigma_mad" in caplog.text
    assert again.payload_sha256 == model.payload_sha256
    other = train(shards, replace(QUICK, seed=1), name="other")
    assert other.entry("weights.safetensors").sha256 != model.entry("weights.safetensors").sha256


def test_training_again_finds_the_model_that_exists(shards: Artifact, model: Artifact) -> None:
    outcome = train_model(shards, QUICK, Destination(shards.store, model.ref.name))
    assert (outcome.status, outcome.artifact) == ("exists", str(model.ref))


def test_a_regression_network_trains_and_its_history_has_no_crps(shards: Artifact) -> None:
    settings = replace(QUICK, model="menko2024", epochs=1)
    described = train(shards, settings, name="menko")
    assert json.loads(described.read("model.json"))["parameters"] == 3_346_657
    assert described.table("history.parquet")["val_crps"].null_count == 1
    assert "epoch 1 of 1, the one with the least `val_mae`" in described.read("card.md").decode()


@pytest.mark.real
def test_a_network_learns_colour_and_a_control_on_shuffled_redshifts_learns_nothing(tmp_path: Path) -> None:
    shards = drawn_shards(tmp_path, count=500)
    settings = TrainSettings(epochs=30, batch_size=64, device="cpu")
    learned, control = train(shards, settings), train(shards, replace(settings, shuffle_labels=True), name="control")
    _, z = drawn_galaxies(500, (3, 24, 24), "uint8")
    prior = 1.4826 * np.median(np.abs((z - np.median(z)) / (1 + z)))
    assert learned.summary["validation"]["val_sigma_mad"] < 0.4 * prior
    assert control.summary["validation"]["val_sigma_mad"] > 0.8 * prior
    assert "control" in control.read("card.md").decode()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": -1}, "--epochs -1"),
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"seed": -1}, "--seed -1"),
        ({"model": "vgg"}, "aperture-cnn, menko2024"),
        ({"model": "torchvision:"}, "torchvision:resnet18"),
        ({"device": "tpu"}, "auto, cpu or cuda"),
        ({"nproc": 0}, "--nproc 0"),
        ({"bins": 1}, "--bins 1"),
    ],
)
def test_settings_that_can_not_work_are_refused_when_they_are_built(settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        TrainSettings(**settings)  # type: ignore[arg-type]


def test_a_gpu_that_is_not_there_is_refused(shards: Artifact) -> None:
    with pytest.raises(BadInput, match="--device cuda"):
        train(shards, replace(QUICK, device="cuda"), name="gpu")


def test_shards_without_a_val_split_are_refused(tmp_path: Path) -> None:
    lonely = drawn_shards(tmp_path, 30, split=pa.array(["train"] * 30))
    with pytest.raises(BadInput, match="val split is empty"):
        train(lonely)


def test_a_galaxy_without_redshift_is_refused_by_name(tmp_path: Path) -> None:
    z = pa.array([None if number == 10 else 0.1 + 0.001 * number for number in range(30)], pa.float64())
    unknown = drawn_shards(tmp_path, 30, z_spec=z)
    with pytest.raises(BadInput, match=r"galaxy table/1000000000000079190 has z_spec nan"):
        train(unknown)


def test_a_loss_that_is_not_finite_stops_training_and_names_the_step(
    shards: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photoz.train.losses.CRPS_WEIGHT", float("inf"))
    with pytest.raises(BadInput, match=r"loss is (inf|nan) by step 1 of epoch 1"):
        train(shards, name="diverged")
