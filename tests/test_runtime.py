"""Task slices, ranks and signals as schedulers give them."""

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from photoz import runtime
from photoz.errors import BadInput, ExitCode
from photoz.runtime import TaskSlice


@given(st.lists(st.integers(), max_size=50), st.integers(1, 9))
def test_slices_share_all_pieces_and_none_twice(pieces: list[int], count: int) -> None:
    shares = [TaskSlice(index, count).take(pieces) for index in range(count)]
    assert sorted(piece for share in shares for piece in share) == sorted(pieces)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0)])
def test_an_impossible_slice_is_bad_input(index: int, count: int) -> None:
    with pytest.raises(BadInput, match="task"):
        TaskSlice(index, count)


def test_a_process_outside_of_any_array_does_everything() -> None:
    assert runtime.task_slice() == TaskSlice(0, 1)


def test_a_slurm_array_counts_from_its_first_task_in_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    array = {"ID": "11", "MIN": "3", "STEP": "4", "COUNT": "5"}
    for name, value in array.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert runtime.task_slice() == TaskSlice(2, 5)
    assert runtime.task_slice(0, 3) == TaskSlice(0, 3)


def test_a_kubernetes_index_goes_with_tasks_from_the_flag_or_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "6")
    assert runtime.task_slice(None, 8) == TaskSlice(6, 8)


@pytest.mark.parametrize(("task", "tasks"), [(1, None), (None, 4)])
def test_half_a_slice_is_bad_input(task: int | None, tasks: int | None) -> None:
    with pytest.raises(BadInput, match="give both"):
        runtime.task_slice(task, tasks)


def test_a_slice_number_that_is_none_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "first")
    with pytest.raises(BadInput, match="JOB_COMPLETION_INDEX='first'"):
        runtime.task_slice(None, 4)


def test_ranks_are_those_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime.world() == runtime.World(0, 0, 1)
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert runtime.world() == runtime.World(5, 1, 8)


@pytest.mark.parametrize(
    ("node", "rank", "hosts", "first"),
    [(0, 1, "n1", "n1"), (2, 5, "n[03-05],m1", "n03"), (3, 6, "gpu-a[7,9-11]", "gpu-a7"), (1, 2, "a1,b2,c3,d4", "a1")],
)
def test_a_slurm_step_of_several_tasks_is_a_world_that_meets_on_its_first_host(
    monkeypatch: pytest.MonkeyPatch, node: int, rank: int, hosts: str, first: str
) -> None:
    step = {
        "SLURM_PROCID": rank, "SLURM_LOCALID": 0, "SLURM_STEP_NUM_TASKS": 7, "SLURM_NODEID": node,
        "SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_STEP_NODELIST": hosts, "SLURM_JOB_ID": 123456,
    }  # fmt: skip
    for name, value in step.items():
        monkeypatch.setenv(name, str(value))
    assert runtime.world() == runtime.World(rank, 0, 7, [2, 2, 2, 1][node])
    assert runtime.meeting_point() == f"tcp://{first}:23456"
    monkeypatch.setenv("MASTER_ADDR", "elsewhere")  # as torchrun says
    assert runtime.meeting_point() is None


def test_a_slurm_step_of_one_task_is_alone_in_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert runtime.world() == runtime.World()


def test_exit_codes_are_those_that_schedulers_match_on() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "BUG": 1,
        "BAD_INPUT": 2,
        "MISSING_ARTIFACT": 3,
        "CONFLICT": 4,
        "BAD_FORMAT": 5,
        "TRY_AGAIN": 75,
        "PREEMPTED": 85,
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_signal_ends_the_job_at_its_next_safe_point(number: signal.Signals) -> None:
    program = f"""
import os
from photoz import runtime
from photoz.errors import Preempted
runtime.install_stop_handlers()
runtime.check_stop()
os.kill(os.getpid(), {int(number)})
assert runtime.stop_requested()
try:
    runtime.check_stop()
except Preempted as stop:
    print(stop.exit_code, stop)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ))
    assert done.stderr == ""
    assert done.stdout.startswith(f"85 stopped by {number.name}")
