"""photoz-job in forked children: everything is imported once, and a child can be told where to die."""

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import photoz.infer.predict
import photoz.train.model_job  # noqa: F401 - imported now, so that no child has to
from jobs.app import app
from jobs.session import exit_code_of
from photoz import runtime
from photoz.artifacts import file_store, s3_store

LIMIT_S = 300
HALF_WAY = "half-way through"
MOMENTS = ("before", HALF_WAY, "after")
_WHAT = (
    ("/parts/claims/", "claim"),
    ("/parts/pieces/", "piece receipt"),
    ("/parts/finished/", "mark of a finished slice"),
    ("/parts/failed/", "note on a failure"),
    ("/parts/plan.json", "list of pieces"),
    ("/parts/", "slice receipt"),
    ("/stage/", "stage file"),
    ("/state/", "checkpoint or plan"),
    ("/manifest.json", "manifest"),
    ("/fingerprint-", "mark of a version"),
    ("/data/", "payload file"),
)


@dataclass(frozen=True)
class Crash:
    """Where a child kills itself: before, half-way through or after its `step`-th write (from 0) to the store."""

    step: int
    moment: str


@dataclass(frozen=True)
class Ended:
    """A child that has ended: its exit code (negative: the signal that killed it), its output, what it wrote."""

    code: int
    out: str
    err: str
    writes: list[str]
    seconds: float


def run_child(
    arguments: list[str],
    folder: Path,
    *,
    crash: Crash | None = None,
    kill_after_s: float | None = None,
    prepare: Callable[[], object] = lambda: None,
) -> Ended:
    """Run photoz-job in a child with its files in `folder`; `prepare` is called in it first."""
    names = {name: folder / f"child-{os.getpid()}.{name}" for name in ("out", "err", "writes")}
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_the_job(arguments, names, crash, prepare)
    code = _wait(child, kill_after_s)
    texts = {name: path.read_text(errors="replace") for name, path in names.items()}
    return Ended(code, texts["out"], texts["err"], texts["writes"].splitlines(), time.monotonic() - started)


def _be_the_job(
    arguments: list[str], names: dict[str, Path], crash: Crash | None, prepare: Callable[[], object]
) -> None:
    code = 1
    try:
        os.setsid()
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(names[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        warnings.simplefilter("default")
        runtime.install_stop_handlers()
        torch.set_num_threads(1)
        runtime.usable_cores = lambda: 1  # two children share two cores
        _watch_writes(names["writes"], crash)
        prepare()
        code = exit_code_of(lambda: app(arguments, standalone_mode=False))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(child: int, kill_after_s: float | None) -> int:
    """The child's exit code, once it and everything it started is gone."""
    deadline = time.monotonic() + (LIMIT_S if kill_after_s is None else kill_after_s)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if kill_after_s is None:
                raise AssertionError(f"a job took more than {LIMIT_S} s")
            break
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a dead job leaves behind would otherwise pile up
    return os.waitstatus_to_exitcode(status)


def what_is(key: str) -> str:
    """What a key of the store is, in words."""
    return next((what for part, what in _WHAT if part in f"/{key}"), "other")


def _watch_writes(log: Path, crash: Crash | None) -> None:
    """Note every write of this process to a store, in order, and die where `crash` says."""
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    steps = iter(range(10**9))
    lock = threading.Lock()

    def watched(verb: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: object, key: str, *rest: object) -> Any:
            with lock:
                step = next(steps)
                os.write(written, f"{'removal of ' if verb == 'delete' else ''}{what_is(key)}\n".encode())
            here = crash is not None and crash.step == step
            if here and crash.moment == "before":
                die()
            with _dying_half_way(here and crash.moment == HALF_WAY):
                result = original(self, key, *rest)
            if here:
                die()
            return result

        return call

    for store in (file_store.FileStore, s3_store.S3Store):
        for verb in ("put", "create", "delete"):
            setattr(store, verb, watched(verb, getattr(store, verb)))


@contextlib.contextmanager
def _dying_half_way(wanted: bool) -> Iterator[None]:
    """Die with a folder's temporary file written but not yet named, or with a request to a server under way."""
    if wanted:
        write_durably = file_store._write_durably

        def write_and_die(*arguments: Any) -> None:
            write_durably(*arguments)
            die()

        file_store._write_durably = write_and_die
        timer = threading.Timer(0.002, die)
        timer.start()
    yield


def die() -> None:
    """What the kernel does to a process that is out of memory, or a scheduler to one out of time."""
    os.kill(os.getpid(), signal.SIGKILL)
