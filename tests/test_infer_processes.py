"""Infer by several processes, as on a GPU's host with many cores; here they compute on the CPU."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from photoz.artifacts import Artifact, Destination, Ref, load
from photoz.errors import BadFormat, MissingArtifact
from photoz.infer import InferSettings, infer_redshifts, predict
from photoz.infer.inference import Inference
from photoz.runtime import TaskSlice
from tests.shards_support import own_path
from tests.training_support import QUICK, drawn_shards, infer, train

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("one_core")]
CPU = InferSettings(device="cpu", split="train")


@pytest.fixture
def shards(tmp_path: Path) -> Artifact:
    return drawn_shards(tmp_path, 90, samples_per_shard=10)


@pytest.fixture
def model(shards: Artifact) -> Artifact:
    return train(shards, replace(QUICK, epochs=1))


@pytest.fixture
def by_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "_processes", lambda images, shards, work: 2)


def this_one_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inference, "make", None)  # in this process: those that are started import their own


@pytest.mark.usefixtures("by_two_processes")
@pytest.mark.parametrize("tasks", [1, 2])
def test_predictions_are_the_same_by_one_process_or_two(
    tasks: int, shards: Artifact, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as alone:
        alone.setattr(predict, "_processes", lambda images, shards, work: 1)
        here = infer(model, shards, CPU, name="here")
    this_one_computes_nothing(monkeypatch)
    for index in range(tasks):
        outcome = infer_redshifts(model, shards, CPU, Destination(shards.store, "there", TaskSlice(index, tasks)))
    there = load(shards.store, Ref.parse(outcome.artifact))
    assert outcome.status == "created" and len(there.names()) > 4
    assert there.payload_sha256 == here.payload_sha256


@pytest.mark.usefixtures("by_two_processes")
def test_a_broken_shard_is_named_and_the_job_goes_on_once_it_is_mended(
    shards: Artifact, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = own_path(shards, "train-000001.tar")
    whole = tar.read_bytes()
    tar.write_bytes(b"\0" * len(whole))
    with pytest.raises(BadFormat, match="train-000001"):
        infer_redshifts(model, shards, CPU, Destination(shards.store, "broken"))
    with pytest.raises(MissingArtifact):
        load(shards.store, Ref("predictions", "broken"))
    tar.write_bytes(whole)
    this_one_computes_nothing(monkeypatch)
    assert infer_redshifts(model, shards, CPU, Destination(shards.store, "broken")).status == "created"


@pytest.mark.parametrize(
    ("device", "images", "shards", "cores", "force", "expected"),
    [
        ("cuda", 1_000_000, 100, 16, False, 4),
        ("cuda", 1_000_000, 3, 16, False, 3),
        ("cuda", 1_000_000, 100, 9, False, 2),
        ("cuda", 1_000_000, 100, 2, False, 1),
        ("cuda", 10_000, 100, 16, False, 1),
        ("cuda", 1_000_000, 100, 16, True, 1),
        ("cpu", 1_000_000, 100, 16, False, 1),
    ],
)
def test_a_gpu_gets_a_process_for_four_cores_if_there_is_much_to_do(
    device: str, images: int, shards: int, cores: int, force: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict.runtime, "usable_cores", lambda: cores)
    work = SimpleNamespace(device=torch.device(device), dest=SimpleNamespace(force=force))
    assert predict._processes(images, shards, work) == expected  # type: ignore[arg-type]
