"""`--nproc N`: this process is rank 0 and starts the others, so that logs, signals and the exit code stay its own."""

import logging
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnProcess

from photoz import runtime
from photoz.artifacts import Artifact, Destination, Ref, load, open_store
from photoz.errors import BadInput, ExitCode, PhotozError, Preempted, TryAgain
from photoz.train.settings import TrainSettings

log = logging.getLogger("photoz.train")

_LEAVE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class _OtherRank:
    """What a process started here has to know; an open store can't be sent to it, its address can."""

    role: runtime.World
    port: int
    shards: str
    settings: TrainSettings
    store_url: str
    name: str
    force: bool


@contextmanager
def ranks_on_this_machine(shards: Artifact, settings: TrainSettings, dest: Destination) -> Iterator[runtime.World]:
    """The ranks that train together while the block runs, as torchrun set them or as --nproc asks for.

    Raises BadInput where both do, TryAgain if a process that was started here died.
    """
    world = runtime.world()
    if settings.nproc == 1:
        yield world
        return
    if world.size > 1:
        raise BadInput(f"--nproc {settings.nproc} under torchrun, which has started {world.size} processes: give one")
    port = _free_port()
    others = [
        multiprocessing.get_context("spawn").Process(target=_run, args=(other,))
        for other in (
            _OtherRank(
                role=runtime.World(rank, rank, settings.nproc, settings.nproc),
                port=port,
                shards=str(shards.ref),
                settings=replace(settings, nproc=1),
                store_url=dest.store.url,
                name=dest.name,
                force=dest.force,
            )
            for rank in range(1, settings.nproc)
        )
    ]
    _start(others)
    try:
        role = runtime.World(0, 0, settings.nproc, settings.nproc)
        with runtime.acting_as(role, port):
            yield role
    except (RuntimeError, TryAgain) as error:  # once another rank is gone
        _end(others)
        dead = {rank: process.exitcode for rank, process in enumerate(others, 1) if process.exitcode}
        if not dead:
            raise
        if ExitCode.PREEMPTED in dead.values():
            raise Preempted(
                "another rank was asked to stop before the first step: run the same command again"
            ) from error
        raise TryAgain(f"process of rank {min(dead)} ended with exit code {dead[min(dead)]}; run it again") from error
    except BaseException:
        for process in others:
            process.terminate()
        raise
    finally:
        _end(others)


def _start(others: list[SpawnProcess]) -> None:
    """Start processes that get even a stop signal that comes before they can handle it."""
    with runtime.stop_signals_held():
        for process in others:
            process.start()


def _end(others: list[SpawnProcess]) -> None:
    for process in others:
        process.join(_LEAVE_S)
        if process.is_alive():
            process.kill()
            process.join()


def _run(other: _OtherRank) -> None:
    from photoz.train.model_job import make_model  # it imports this module

    runtime.install_stop_handlers()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with runtime.acting_as(other.role, other.port):
        try:
            store = open_store(other.store_url)
            dest = Destination(store, other.name, force=other.force)
            make_model(load(store, Ref.parse(other.shards)), other.settings, dest)
        except PhotozError as error:
            sys.exit(int(error.exit_code))  # rank 0 says what is wrong


def _leave_with_parent() -> None:
    """However rank 0 ends, this process does not outlive it: it would wait for it at the next step."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(ExitCode.TRY_AGAIN)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
