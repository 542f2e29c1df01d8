"""A process that waits for other ranks says so at once, with what made it one."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from photoz import runtime
from photoz.errors import BadInput, TryAgain
from photoz.runtime import World
from photoz.train import distributed
from tests.test_train_ranks import on_ranks
from tests.training_support import drawn_shards

STEP = {
    "SLURM_PROCID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_JOB_ID": "4711",  # the ranks meet at port 24711
}


def test_train_by_hand_in_a_shell_of_srun_says_at_once_whom_it_waits_for_and_what_to_do(tmp_path: Path) -> None:
    shards = drawn_shards(tmp_path, count=60)
    command = [sys.executable, "-m", "jobs", "train", "--store", shards.store.url, "--shards", str(shards.ref)]
    shell = os.environ | STEP | {"SLURM_PTY_PORT": "40000"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=shell) as process:
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if " waits for " in line)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)  # Ctrl-C: torch would wait on for its 20 minutes
            rest = process.stderr.read()
            assert process.wait(60) == 130, rest
        finally:
            process.kill()
    assert rest.splitlines()[-1].startswith("photoz-job: error: interrupted; ")
    assert "rank 0 of 2 (SLURM_PROCID=0, SLURM_STEP_NUM_TASKS=2) waits for 1 other at localhost:24711" in line
    assert "srun --overlap photoz-job train" in line
    assert "env -u SLURM_STEP_NUM_TASKS photoz-job train" in line


def test_the_hint_for_a_process_alone_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    assert runtime.world().size == 2
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    assert runtime.world() == World()


def comes(world: World) -> None:
    return None


def test_whoever_still_waits_says_it_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "photoz.ranks")
    monkeypatch.setattr(distributed, "SAY_EVERY_S", 0.05)
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}.items():
        monkeypatch.setenv(name, value)
    with distributed._told_while_waiting(World(1, 1, 3, 3), 1200):
        deadline = time.monotonic() + 60
        while len(caplog.messages) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
    said = "rank 1 of 3 (RANK=1, WORLD_SIZE=3)"
    assert caplog.messages[0] == f"{said} waits for 2 others at 127.0.0.1:1234, 1200 s at most"
    assert caplog.messages[1].startswith(f"{said} has waited ")
    assert len(caplog.messages) >= 3


def test_a_rank_alone_at_the_meeting_says_it_again_while_torch_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """torch waits in C: this shows that it lets other threads speak meanwhile."""
    caplog.set_level(logging.INFO, "photoz.ranks")
    monkeypatch.setattr(distributed, "SAY_EVERY_S", 0.2)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TryAgain, match="another rank"), distributed.joined(runtime.world(), torch.device("cpu"), 3):
        pass
    assert sum("has waited" in message for message in caplog.messages) >= 3


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "n1"}, "MASTER_PORT is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "http"}, "MASTER_PORT='http'"),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, "MASTER_ADDR is not set"),
    ],
)
def test_ranks_that_nobody_told_where_to_meet_are_bad_input(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=says), distributed.joined(runtime.world(), torch.device("cpu"), 3):
        pass


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("0", "0")])
def test_a_rank_outside_of_its_world_is_bad_input(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(BadInput, match=f"RANK={rank}, WORLD_SIZE={size}"):
        runtime.world()


def test_ranks_that_meet_go_on() -> None:
    assert on_ranks(2, comes) == [None, None]
