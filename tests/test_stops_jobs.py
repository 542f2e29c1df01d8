"""Each job as a real process, stopped at seeded random moments: 85 in time, nothing left behind, the same bytes."""

import json
import os
import random
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from photoz.artifacts import KINDS, Ref, Store, load, open_store
from photoz.errors import ExitCode
from tests.training_support import job_command

pytestmark = pytest.mark.real

LIMIT_S = 25.0
LATEST = (0.1, 0.5, 0.9)  # moment of each stop at the latest, as a share of what the job takes
SMALL = {
    "catalog": ["--survey", "embedded", "--limit", "300"],
    "shard": ["--samples-per-shard", "60"],
    "train": ["--epochs", "3", "--batch-size", "32", "--device", "cpu"],
    "infer": ["--batch-size", "32", "--device", "cpu"],
    "evaluate": ["--bootstrap", "50"],
}
MAKES = dict(zip(SMALL, KINDS, strict=True))
READS = {"shard": "--catalog", "train": "--shards", "infer": "--model", "evaluate": "--predictions"}


@dataclass(frozen=True)
class Undisturbed:
    """A store in which each job has run once, under the name `whole`, and how long each took."""

    store: Store
    sky: str
    seconds: dict[str, float]

    def command(self, job: str, name: str, *more: str) -> list[str]:
        """The job's command line, on the inputs of the undisturbed run."""
        if job == "run":
            every = {
                f"--{job}-batch-size" if flag == "--batch-size" else flag: value
                for job, flags in SMALL.items()
                for flag, value in zip(flags[::2], flags[1::2], strict=True)
            }
            flags = [word for pair in every.items() for word in pair]
            return job_command("run", *flags, "--survey-url", self.sky, *more)
        small = zip(SMALL[job][::2], SMALL[job][1::2], strict=True)
        flags = [word for flag, value in small if flag not in more for word in (flag, value)]
        flags += ["--name", name, "--store", self.store.url]
        if job in READS:
            flags += [READS[job], f"{KINDS[list(SMALL).index(job) - 1]}/whole"]
        if job == "infer":
            flags += ["--shards", "shards/whole"]
        asks = ["--survey-url", self.sky] if job in ("catalog", "shard") else []
        return job_command(job, *flags, *asks, *more)


@contextmanager
def sky_server(*more: str) -> Iterator[str]:
    """`photoz-job sky serve` in a process of its own; yields its address."""
    command = job_command("sky", "serve", "--port", "0", "--galaxies", "2000", *more)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert server.stdout is not None
    try:
        yield str(json.loads(server.stdout.readline())["url"])
    finally:
        server.terminate()
        assert server.wait(timeout=30) == 0
        server.stdout.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    with sky_server() as sky:
        store = open_store(str(tmp_path_factory.mktemp("stops") / "store"))
        whole = Undisturbed(store, sky, {})
        for job in SMALL:
            started = time.monotonic()
            finish(whole.command(job, "whole"))
            whole.seconds[job] = time.monotonic() - started
        yield whole


def finish(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == ExitCode.DONE, done.stderr


def digest(store: Store, kind: str, name: str) -> str:
    return load(store, Ref(kind, name)).payload_sha256


@dataclass(frozen=True)
class Stopped:
    """How a job ended that was sent a signal."""

    code: int
    out: str
    err: str
    seconds: float


def stop(command: list[str], after_s: float, number: signal.Signals) -> Stopped:
    """Run a command and send it a signal some time after it can handle one; nothing of it may be left running."""
    mark = f"TEST_MARK={uuid.uuid4().hex}"
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict([mark.split("=")]),
    )
    wait_until(lambda: handles_stops(process))
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    sent = time.monotonic()
    out, err = process.communicate(timeout=120)
    seconds = time.monotonic() - sent
    wait_until(lambda: not processes_with(mark))
    return Stopped(process.returncode, out, err, seconds)


def handles_stops(process: "subprocess.Popen[str]") -> bool:
    """Whether the process has its handlers, or has ended."""
    try:
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    except OSError:
        return True
    return caught is None or process.poll() is not None or bool(int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1)


def wait_until(true: Callable[[], bool], within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes_with(mark: str) -> list[str]:
    """Command lines of the processes with this in their environment, whatever session they are in."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def check(found: Stopped, number: signal.Signals) -> None:
    """The contract of a stop: 85 in time, nothing on stdout, and one last line that says what to do."""
    if found.code == ExitCode.DONE:  # it had finished before the signal came
        return
    assert found.code == ExitCode.PREEMPTED, found.err
    assert found.seconds < LIMIT_S
    assert found.out == ""
    assert "Traceback" not in found.err
    last = found.err.splitlines()[-1]
    assert last.startswith(f"photoz-job: error: stopped by {number.name}") and "run the same command" in last


@pytest.mark.parametrize("job", SMALL)
def test_a_job_stopped_at_random_moments_goes_on_to_the_bytes_of_an_undisturbed_one(
    undisturbed: Undisturbed, job: str
) -> None:
    dice, name = random.Random(f"stops of {job}"), f"stopped-{job}"
    codes = []
    for latest in LATEST:
        number = dice.choice([signal.SIGTERM, signal.SIGUSR1])
        after_s = dice.uniform(0.0, latest) * undisturbed.seconds[job]
        found = stop(undisturbed.command(job, name), after_s, number)
        check(found, number)
        codes.append(found.code)
    assert ExitCode.PREEMPTED in codes, "every attempt finished before its signal: nothing was tried"
    finish(undisturbed.command(job, name))
    assert digest(undisturbed.store, MAKES[job], name) == digest(undisturbed.store, MAKES[job], "whole")


def test_a_run_stopped_at_random_moments_goes_on_to_the_bytes_of_an_undisturbed_one(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    dice = random.Random("stops of run")
    store = open_store(str(tmp_path / "store"))
    command = undisturbed.command("run", "whole", "--name", "whole", "--store", store.url)
    for _ in range(4):
        number = dice.choice([signal.SIGTERM, signal.SIGUSR1])
        check(stop(command, dice.uniform(2.0, 0.4 * sum(undisturbed.seconds.values())), number), number)
    finish(command)
    for kind in KINDS:
        assert digest(store, kind, "whole") == digest(undisturbed.store, kind, "whole"), kind


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("job", ["catalog", "shard"])
def test_a_job_that_waits_for_a_silent_server_leaves_at_once(
    undisturbed: Undisturbed, job: str, number: signal.Signals
) -> None:
    # The first request, for its identity, is answered; one of the next few is not.
    with sky_server("--faults", "timeout:0.5", "--seed", "0") as silent:
        command = undisturbed.command(job, f"silent-{job}-{number.name.lower()}")
        command[command.index(undisturbed.sky)] = silent
        found = stop(command, 8.0, number)
    check(found, number)
    assert found.code == ExitCode.PREEMPTED
    assert found.seconds < 15, "it was the watch that ended it, after 20 s"


@pytest.mark.parametrize("after_s", [1.5, 4.0])
def test_a_job_s_own_sky_leaves_with_it_even_while_it_is_built(tmp_path: Path, after_s: float) -> None:
    command = job_command("catalog", *SMALL["catalog"], "--store", str(tmp_path))
    found = stop(command, after_s, signal.SIGTERM)
    check(found, signal.SIGTERM)


def test_a_job_killed_outright_leaves_no_sky_and_no_rank_behind(undisturbed: Undisturbed, tmp_path: Path) -> None:
    catalog = job_command("catalog", *SMALL["catalog"], "--store", str(tmp_path))
    assert stop(catalog, 1.5, signal.SIGKILL).code == -signal.SIGKILL
    train = undisturbed.command("train", "killed-ranks", "--nproc", "2", "--epochs", "2000")
    assert stop(train, 10.0, signal.SIGKILL).code == -signal.SIGKILL
