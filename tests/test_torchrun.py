"""jobs.torchrun: schedulers go by its exit code."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.torchrun import KILLED, code_of_all
from photoz.errors import ExitCode

# Two ranks meet; then rank 0 does what the argument says while rank 1 waits for it in a collective.
PROGRAM = """
import os, signal, sys
import torch
from jobs.session import exit_code_of, leave
from photoz import runtime
from photoz.errors import BadInput
from photoz.train import distributed

def work():
    world = runtime.world()
    with distributed.joined(world, torch.device("cpu"), 60):
        distributed.wait_for_all(world)
        if world.rank == 0 and sys.argv[1] == "bad input":
            raise BadInput("only rank 0 writes, and it may not")
        if world.rank == 0 and sys.argv[1] == "bug":
            raise AssertionError("only on rank 0")
        if world.rank == 0 and sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if world.rank == 0 and sys.argv[1] == "stop":
            os.kill(os.getppid(), signal.SIGUSR1)
            os.kill(os.getppid(), signal.SIGTERM)
        while sys.argv[1] != "done":
            distributed.check_stop(world, torch.device("cpu"))

runtime.install_stop_handlers()
code = exit_code_of(work)
# One write, so that what two ranks say at once stays two lines.
os.write(1, f"rank {runtime.world().rank} ends with {int(code)}\\n".encode())
leave(code)
"""


def torchrun(tmp_path: Path, what: str) -> "subprocess.CompletedProcess[str]":
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    flags = ["--standalone", "--nproc-per-node", "2", str(program), what]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "jobs.torchrun", *flags], capture_output=True, text=True, timeout=200, env=environment
    )


def test_what_has_to_be_mended_comes_before_what_may_pass() -> None:
    assert code_of_all([75, 2, -15]) == ExitCode.BAD_INPUT
    assert code_of_all([85, 1, 75]) == ExitCode.BUG
    assert code_of_all([75, -9, 85]) == KILLED
    assert code_of_all([85, 75]) == ExitCode.TRY_AGAIN
    assert code_of_all([85, -15]) == ExitCode.PREEMPTED
    assert code_of_all([-signal.SIGABRT]) == ExitCode.TRY_AGAIN
    assert code_of_all([-signal.SIGSEGV]) == ExitCode.BUG


@pytest.mark.real
@pytest.mark.parametrize(
    ("what", "code"),
    [("done", 0), ("bug", ExitCode.BUG), ("killed", KILLED)],
)
def test_it_ends_with_the_code_of_its_ranks(tmp_path: Path, what: str, code: int) -> None:
    done = torchrun(tmp_path, what)
    assert done.returncode == code, done.stderr


@pytest.mark.real
def test_a_rank_left_alone_ends_with_the_reason_of_the_one_that_left(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "bad input")
    assert done.returncode == ExitCode.BAD_INPUT, done.stderr
    # torchrun stops the other as soon as it sees one gone: it may leave by that instead.
    assert "rank 0 ends with 2" in done.stdout
    assert "rank 1 ends with 2" in done.stdout or "rank 1 ends with 85" in done.stdout


@pytest.mark.real
def test_two_stop_signals_in_a_row_let_the_ranks_save_their_state(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "stop")
    assert done.returncode == ExitCode.PREEMPTED, done.stderr
    assert {"rank 0 ends with 85", "rank 1 ends with 85"} <= set(done.stdout.splitlines())


@pytest.mark.real
def test_it_can_be_stopped_while_it_waits_for_the_other_hosts(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        flags = ["--nnodes", "2", "--node-rank", "1", "--master-addr", "127.0.0.1"]
        flags += ["--master-port", str(silent.getsockname()[1]), "program.py"]
        process = subprocess.Popen([sys.executable, "-m", "jobs.torchrun", *flags], stderr=subprocess.DEVNULL)
        silent.settimeout(100)
        with silent.accept()[0]:
            process.send_signal(signal.SIGUSR1)
            assert process.wait(100) == ExitCode.PREEMPTED
