"""Stopped and resumed equals unbroken: real signals to real processes."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from photoz.artifacts import Artifact, Ref, load
from photoz.errors import BadFormat, ExitCode
from photoz.train.state import Checkpoint, Progress
from tests.training_support import drawn_shards, job_command

EPOCHS = 8
STEPS = 9  # an epoch
PAIR = ["--nproc", "2"]
SELF, OTHER = "os.getpid()", "multiprocessing.active_children()[0].pid"

# Runs photoz-job, but when `where` is called for the nth time a process is sent a signal.
DRIVER = """
import multiprocessing, os, sys
from photoz.train import {module} as module
from jobs.__main__ import main

owner = {owner}
real, calls = owner.{function}, 0

def signalling(*arguments):
    global calls
    calls += 1
    if calls == {nth}:
        os.kill({whom}, {number})
    return real(*arguments)

if __name__ == "__main__":
    owner.{function} = signalling
    main()
"""
MEASURING, STEP, VALIDATION, CALIBRATION = (
    ("run", "module", "measured"),
    ("step", "module.TrainingStep", "take"),
    ("run", "module", "run_on_first"),
    ("finish", "module", "run_on_first"),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return drawn_shards(tmp_path_factory.mktemp("stops"), count=300)


@pytest.fixture(scope="module")
def unbroken(shards: Artifact) -> str:
    """The payload digest of a run that nobody stopped."""
    return finished(shards, "unbroken")


@pytest.fixture(scope="module")
def unbroken_pair(shards: Artifact) -> str:
    """The same for two ranks."""
    return finished(shards, "unbroken-pair", *PAIR)


def start(shards: Artifact, name: str, *more: str, program: list[str] | None = None) -> "subprocess.Popen[str]":
    """Begin training in a process of its own, on one thread so that its sums always round alike."""
    epochs = () if "--epochs" in more else ("--epochs", str(EPOCHS))
    command = ["train", "--shards", str(shards.ref), "--name", name, "--store", shards.store.url]
    return subprocess.Popen(
        [
            *(program or job_command()),
            *command,
            *epochs,
            "--batch-size",
            "20",
            "--device",
            "cpu",
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),
    )


def finished(shards: Artifact, name: str, *more: str) -> str:
    """Train to the end and return the payload's digest."""
    process = start(shards, name, *more)
    message = process.communicate(timeout=300)[1]
    assert process.returncode == ExitCode.DONE, message
    return load(shards.store, Ref("model", name)).payload_sha256


def signalled(
    shards: Artifact,
    name: str,
    where: tuple[str, str, str],
    nth: int,
    number: signal.Signals,
    *more: str,
    whom: str = SELF,
) -> tuple[int, str]:
    """(exit code, stderr) of training in which `whom` gets a signal as `where` is come to for the nth time."""
    module, owner, function = where
    program = DRIVER.format(module=module, owner=owner, function=function, nth=nth, whom=whom, number=int(number))
    process = start(shards, name, *more, program=[sys.executable, "-c", program])
    out, err = process.communicate(timeout=120)
    assert out == ""
    return process.returncode, err


def states(shards: Artifact, name: str) -> list[Path]:
    folder = Path(shards.store.url.removeprefix("file://")) / "model" / name
    return sorted(folder.rglob("state/training-*.pt"))


def preempted(outcome: tuple[int, str]) -> None:
    code, err = outcome
    assert code == ExitCode.PREEMPTED, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("photoz-job: error: ")


@pytest.mark.real
@pytest.mark.parametrize("seed", range(2))
def test_a_run_stopped_again_and_again_gives_the_bytes_of_an_unbroken_one(
    shards: Artifact, unbroken: str, seed: int
) -> None:
    dice, name = random.Random(seed), f"stopped-{seed}"
    for _ in range(3):
        number = dice.choice([signal.SIGTERM, signal.SIGUSR1])
        outcome = signalled(shards, name, STEP, dice.randint(1, 2 * STEPS), number)
        preempted(outcome)
        assert f"stopped by {number.name}" in outcome[1]
        assert len(states(shards, name)) <= 2
    assert finished(shards, name) == unbroken
    assert states(shards, name) == []


@pytest.mark.real
@pytest.mark.parametrize(("more", "whom"), [([], SELF), (PAIR, SELF), (PAIR, OTHER)], ids=["alone", "rank 0", "rank 1"])
def test_a_run_stopped_while_it_measures_gives_the_bytes_of_an_unbroken_one(
    shards: Artifact, unbroken: str, unbroken_pair: str, more: list[str], whom: str
) -> None:
    name = f"measuring-{len(more)}-{'self' if whom == SELF else 'other'}"
    preempted(signalled(shards, name, MEASURING, 1, signal.SIGTERM, *more, whom=whom))
    assert whom == OTHER or states(shards, name) == []  # another process may hear of it only in the first step
    assert finished(shards, name, *more) == (unbroken_pair if more else unbroken)


@pytest.mark.real
@pytest.mark.parametrize(("where", "nth"), [(VALIDATION, 2), (CALIBRATION, 1), (CALIBRATION, 2)])
def test_a_stop_while_it_validates_or_calibrates_loses_no_step(
    shards: Artifact, unbroken: str, where: tuple[str, str, str], nth: int
) -> None:
    name = f"between-{where[0]}-{nth}"
    preempted(signalled(shards, name, where, nth, signal.SIGTERM))
    steps = {VALIDATION: 2 * STEPS, CALIBRATION: EPOCHS * STEPS}[where]
    assert states(shards, name)[-1].name.startswith(f"training-{steps:08d}-")
    assert finished(shards, name) == unbroken


@pytest.mark.real
def test_a_run_killed_at_any_moment_and_started_again_gives_the_bytes_of_an_unbroken_one(
    shards: Artifact, unbroken: str
) -> None:
    for nth in (STEPS + 3, 5, 2 * STEPS):  # of each run: it goes on from where the last one was
        code, _ = signalled(shards, "killed", STEP, nth, signal.SIGKILL, "--checkpoint-every", "0")
        assert code == -signal.SIGKILL
    done = 2 + STEPS + 4 + 2 * STEPS - 1  # steps before each kill: all were saved
    assert states(shards, "killed")[-1].name.startswith(f"training-{done:08d}-")
    assert finished(shards, "killed") == unbroken


@pytest.mark.real
def test_a_damaged_checkpoint_is_skipped_for_the_one_before_it(shards: Artifact, unbroken: str) -> None:
    name = "damaged"
    preempted(signalled(shards, name, STEP, STEPS + 4, signal.SIGTERM))
    before, newest = states(shards, name)
    data = newest.read_bytes()
    middle = len(data) // 2
    newest.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    process = start(shards, name)
    message = process.communicate(timeout=300)[1]
    assert process.returncode == ExitCode.DONE, message
    assert message.count("is skipped") == 1 and newest.name in message
    assert "resumed in epoch 2, after step 0" in message and before.name not in message
    assert load(shards.store, Ref("model", name)).payload_sha256 == unbroken


@pytest.mark.real
def test_checkpoints_in_a_local_folder_are_found_again_and_gone_at_the_end(
    shards: Artifact, unbroken: str, tmp_path: Path
) -> None:
    there = ["--checkpoints", str(tmp_path / "fast" / "disk"), "--checkpoint-every", "0"]
    preempted(signalled(shards, "local", STEP, STEPS + 4, signal.SIGTERM, *there))
    kept = sorted((tmp_path / "fast" / "disk").rglob("*.pt"))
    assert [path.name[:17] for path in kept] == [f"training-{STEPS + done:08d}" for done in (3, 4)]
    assert states(shards, "local") == []
    process = start(shards, "local", *there)
    assert "resumed in epoch 2, after step 4" in process.communicate(timeout=300)[1]
    assert load(shards.store, Ref("model", "local")).payload_sha256 == unbroken
    assert list((tmp_path / "fast" / "disk").rglob("*.*")) == []


@pytest.mark.real
def test_two_processes_train_one_network(shards: Artifact, unbroken_pair: str) -> None:
    model = load(shards.store, Ref("model", "unbroken-pair"))
    assert model.payload_sha256 == unbroken_pair
    assert model.settings["world"] == 2
    history = model.table("history.parquet").to_pandas()
    assert len(history) == EPOCHS
    assert history["val_crps"].iloc[-1] < history["val_crps"].iloc[0]


@pytest.mark.real
@pytest.mark.parametrize(
    ("where", "nth", "whom"),
    [(STEP, 13, SELF), (STEP, 13, OTHER), (VALIDATION, 2, SELF), (VALIDATION, 2, OTHER), (CALIBRATION, 1, OTHER)],
    ids=["step, rank 0", "step, rank 1", "validation, rank 0", "validation, rank 1", "calibration, rank 1"],
)
def test_two_processes_stop_together_whichever_is_asked_and_go_on_to_the_same_bytes(
    shards: Artifact, unbroken_pair: str, where: tuple[str, str, str], nth: int, whom: str
) -> None:
    name = f"pair-{where[0]}-{nth}-{'self' if whom == SELF else 'other'}"
    preempted(signalled(shards, name, where, nth, signal.SIGUSR1, *PAIR, whom=whom))
    assert states(shards, name)
    assert finished(shards, name, *PAIR) == unbroken_pair


@pytest.mark.real
def test_four_processes_stopped_in_mid_epoch_go_on_to_the_same_bytes(shards: Artifact) -> None:
    # With two, a sum rounds the same in either order.
    four = ["--nproc", "4", "--epochs", "3"]
    unbroken = finished(shards, "unbroken-four", *four)
    preempted(signalled(shards, "four", STEP, 4, signal.SIGTERM, *four))
    assert finished(shards, "four", *four) == unbroken


@pytest.mark.real
def test_a_rank_that_dies_ends_the_others_and_the_run_goes_on_to_the_same_bytes(
    shards: Artifact, unbroken_pair: str
) -> None:
    every_step = [*PAIR, "--checkpoint-every", "0"]
    code, err = signalled(shards, "pair-killed", STEP, 13, signal.SIGKILL, *every_step, whom=OTHER)
    assert code == ExitCode.TRY_AGAIN, err
    assert "rank 1 ended with exit code -9" in err
    # Its death closes the pipes, of which the other rank has copies: `signalled` returns only once both are gone.
    code, err = signalled(shards, "pair-killed", STEP, 5, signal.SIGKILL, *every_step)
    assert code == -signal.SIGKILL
    assert finished(shards, "pair-killed", *PAIR) == unbroken_pair


def test_bytes_that_are_no_checkpoint_are_refused() -> None:
    whole = Checkpoint({"w": torch.ones(3)}, {}, {}, {}, Progress(epoch=2)).encode()
    assert Checkpoint.decode(whole, torch.device("cpu")).progress.epoch == 2
    for broken in (b"", whole[: len(whole) // 2], b"not a checkpoint"):
        with pytest.raises(BadFormat, match="not a checkpoint of this version"):
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
