"""TensorBoard and MLflow follow a training, in their own files, and can't stop it."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from photoz.artifacts import Artifact, Ref, load
from photoz.errors import Preempted
from photoz.train.tracking import Tracked, tracked
from tests.training_support import drawn_shards

RUN = Tracked("made", "0123456789abcdef", {"seed": 3, "shards": "shards/made@v1"})


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TENSORBOARD_LOGGING_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads from a run's folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def trained(shards: Artifact, name: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "jobs", "train", "--store", shards.store.url, "--shards", "shards/drawn"]
    command += ["--name", name, "--epochs", "2", "--batch-size", "32", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.mark.real
def test_both_show_each_epoch_of_a_training_as_its_history_has_it(tmp_path: Path) -> None:
    shards = drawn_shards(tmp_path)
    there = {
        "TENSORBOARD_LOGGING_DIR": str(tmp_path / "board"),
        "MLFLOW_TRACKING_URI": (tmp_path / "mlflow").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_EXPERIMENT_NAME": "galaxies",
    }
    done = trained(shards, "followed", **there)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    model = load(shards.store, Ref("model", "followed"))
    history, timings = (model.table(f"{name}.parquet").to_pylist() for name in ("history", "timings"))
    [folder] = (tmp_path / "board").iterdir()
    shown = scalars(folder)
    assert shown["val_crps"] == [(row["epoch"], pytest.approx(row["val_crps"])) for row in history]
    assert shown["data_wait_s"] == [(row["epoch"], pytest.approx(row["data_wait_s"])) for row in timings]
    [metric] = (tmp_path / "mlflow").glob("*/*/metrics/val_crps")
    kept = [line.split() for line in metric.read_text().splitlines()]
    assert [(int(step), float(value)) for _, value, step in kept] == [
        (row["epoch"], row["val_crps"]) for row in history
    ]
    assert (metric.parents[1] / "params" / "batch_size").read_text() == "32"
    assert "name: galaxies" in (metric.parents[2] / "meta.yaml").read_text()
    # Being followed is no part of what identifies a model.
    plain = trained(shards, "plain")
    assert plain.returncode == 0, plain.stderr
    assert load(shards.store, Ref("model", "plain")).payload_sha256 == model.payload_sha256


def test_a_run_that_is_taken_up_again_goes_on_in_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    with pytest.raises(Preempted), tracked(RUN) as report:
        report({"epoch": 1, "loss": 3.0})
        report({"epoch": 2, "loss": 2.0})
        raise Preempted("asked to stop")
    with tracked(RUN) as report:
        report({"epoch": 2, "loss": 2.0})
        report({"epoch": 3, "loss": 1.0, "val_crps": None, "rate": float("nan")})
    [folder] = (tmp_path / "board").iterdir()
    assert scalars(folder) == {"loss": [(1, 3.0), (2, 2.0), (3, 1.0)]}


@pytest.mark.real
def test_mlflow_goes_on_in_the_run_of_the_same_fingerprint(tmp_path: Path) -> None:
    program = """
from photoz.train.tracking import Tracked, tracked
for first in (1, 2):
    with tracked(Tracked("made", "0123456789abcdef", {"seed": 3})) as report:
        report({"epoch": first, "loss": 4.0 / first})
"""
    there = {"MLFLOW_TRACKING_URI": (tmp_path / "mlflow").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | there,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    [metric] = (tmp_path / "mlflow").glob("*/*/metrics/loss")
    assert [line.split()[1:] for line in metric.read_text().splitlines()] == [["4.0", "1"], ["2.0", "2"]]


def test_one_that_fails_is_left_alone_after_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file" / "board"))
    with caplog.at_level(logging.WARNING), tracked(RUN) as report:
        for epoch in (1, 2, 3):
            report({"epoch": epoch, "loss": 1.0})
    [record] = caplog.records
    assert record.getMessage().startswith("TensorBoard: ")
    assert "training goes on without it" in record.getMessage()


def test_one_that_is_asked_for_but_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING), tracked(RUN) as report:
        report({"epoch": 1, "loss": 1.0})
    [record] = caplog.records
    assert record.getMessage() == "MLFLOW_TRACKING_URI is set, but MLflow is not installed here: pip install mlflow"


def test_nothing_is_told_where_nothing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with tracked(RUN) as report:
        report({"epoch": 1, "loss": 1.0})
    assert list(tmp_path.iterdir()) == []
