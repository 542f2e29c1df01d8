"""Stopped and resumed equals unbroken: real signals to real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from photoz.artifacts import Artifact, Ref, load
from photoz.errors import BadFormat, ExitCode
from photoz.train.state import Checkpoint, Progress
from tests.training_support import drawn_shards, job_command

EPOCHS = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return drawn_shards(tmp_path_factory.mktemp("stops"), count=300)


@pytest.fixture(scope="module")
def unbroken(shards: Artifact) -> Artifact:
    process = start(shards, "unbroken")
    message = process.communicate(timeout=300)[1].decode()
    assert process.returncode == ExitCode.DONE, message
    return load(shards.store, Ref("model", "unbroken"))


def start(shards: Artifact, name: str, *more: str) -> "subprocess.Popen[bytes]":
    """Begin training in a process of its own, on one thread so that its sums always round alike."""
    command = job_command("train", "--shards", str(shards.ref), "--name", name, "--store", shards.store.url)
    return subprocess.Popen(
        [*command, "--epochs", str(EPOCHS), "--batch-size", "20", "--device", "cpu", *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),
    )


def wait_for_checkpoint(shards: Artifact, name: str, process: "subprocess.Popen[bytes]") -> None:
    """Return once the run has saved its first checkpoint, half-way at most."""
    folder = Path(shards.store.url.removeprefix("file://")) / "model" / name
    deadline = time.monotonic() + 240
    while not list(folder.rglob("training.pt")):
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.real
def test_a_run_stopped_by_sigterm_and_started_again_gives_the_bytes_of_an_unbroken_one(
    shards: Artifact, unbroken: Artifact
) -> None:
    first = start(shards, "terminated")
    wait_for_checkpoint(shards, "terminated", first)
    first.terminate()
    message = first.communicate(timeout=120)[1].decode()
    assert first.returncode == ExitCode.PREEMPTED, message
    assert "Traceback" not in message
    again = start(shards, "terminated")
    message = again.communicate(timeout=300)[1].decode()
    assert again.returncode == ExitCode.DONE, message
    assert "resumed in epoch" in message
    assert load(shards.store, Ref("model", "terminated")).payload_sha256 == unbroken.payload_sha256


@pytest.mark.real
def test_a_run_killed_at_any_moment_and_started_again_gives_the_bytes_of_an_unbroken_one(
    shards: Artifact, unbroken: Artifact
) -> None:
    for moment in range(3):
        process = start(shards, "killed")
        wait_for_checkpoint(shards, "killed", process)
        time.sleep(0.4 * moment)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    last = start(shards, "killed")
    message = last.communicate(timeout=300)[1].decode()
    assert last.returncode == ExitCode.DONE, message
    assert load(shards.store, Ref("model", "killed")).payload_sha256 == unbroken.payload_sha256


@pytest.mark.real
def test_two_processes_train_one_network(shards: Artifact) -> None:
    process = start(shards, "two", "--nproc", "2")
    message = process.communicate(timeout=300)[1].decode()
    assert process.returncode == ExitCode.DONE, message
    model = load(shards.store, Ref("model", "two"))
    assert model.settings["world"] == 2
    history = model.table("history.parquet").to_pandas()
    assert len(history) == EPOCHS
    assert history["val_crps"].iloc[-1] < history["val_crps"].iloc[0]


@pytest.mark.real
def test_two_processes_stop_together_and_go_on_to_the_same_bytes(shards: Artifact) -> None:
    whole, first = start(shards, "pair", "--nproc", "2"), start(shards, "pair-stopped", "--nproc", "2")
    wait_for_checkpoint(shards, "pair-stopped", first)
    first.terminate()
    message = first.communicate(timeout=120)[1].decode()
    assert first.returncode == ExitCode.PREEMPTED, message
    again = start(shards, "pair-stopped", "--nproc", "2")
    for process in (again, whole):
        message = process.communicate(timeout=300)[1].decode()
        assert process.returncode == ExitCode.DONE, message
    digests = {load(shards.store, Ref("model", name)).payload_sha256 for name in ("pair", "pair-stopped")}
    assert len(digests) == 1


def test_a_broken_checkpoint_is_refused_with_the_way_out() -> None:
    whole = Checkpoint({"w": torch.ones(3)}, {}, {}, {}, Progress(epoch=2)).encode()
    assert Checkpoint.decode(whole, torch.device("cpu")).progress.epoch == 2
    for broken in (b"", whole[: len(whole) // 2], b"not a checkpoint"):
        with pytest.raises(BadFormat, match="--force"):
            Checkpoint.decode(broken, torch.device("cpu"))


@pytest.mark.real
def test_torchrun_trains_what_nproc_does_and_prints_one_line(shards: Artifact) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    flags = ["train", "--shards", str(shards.ref), "--store", shards.store.url, "--epochs", "2", "--device", "cpu"]
    done = subprocess.run(
        [*torchrun, "-m", "jobs", *flags, "--name", "torchrun"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == ExitCode.DONE, done.stderr
    assert json.loads(done.stdout)["artifact"] == "model/torchrun@v1"
    alone = subprocess.run(job_command(*flags, "--name", "nproc", "--nproc", "2"), capture_output=True, timeout=300)
    assert alone.returncode == ExitCode.DONE, alone.stderr.decode()
    found = [load(shards.store, Ref("model", name)).payload_sha256 for name in ("torchrun", "nproc")]
    assert found[0] == found[1]
