"""Further processes of a job, on this machine: started with their signals, ended with whoever started them."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from photoz import runtime
from photoz.errors import ExitCode, PhotozError, TryAgain

# Told how to report, does its part of the work; has to be one that pickle can send.
Work = Callable[[Callable[[Any], None]], None]

_LEAVE_S = 60.0
_POLL_S = 0.5


def reports(works: Sequence[Work]) -> Iterator[Any]:
    """Do each work in a process of its own, and yield what they report, as it comes.

    Raises what one of them raises, TryAgain if one is killed, and Preempted at a stop; the others are then asked to
    stop, as by a scheduler, and waited for.
    """
    context = multiprocessing.get_context("spawn")  # torch's threads don't live through a fork
    running: dict[Connection, BaseProcess] = {}
    try:
        # Held, a stop that comes before a process can handle it is not lost.
        with runtime.stop_signals_held():
            for work in works:
                here, there = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_do, args=(work, there))
                process.start()
                there.close()
                running[here] = process
        while running:
            runtime.check_stop()
            for pipe in wait(list(running), _POLL_S):
                assert isinstance(pipe, Connection)
                yield from _said(pipe, running)
    finally:
        for process in running.values():
            process.terminate()
        end(list(running.values()))


def _said(pipe: Connection, running: dict[Connection, BaseProcess]) -> Iterator[Any]:
    try:
        said = pipe.recv()
    except EOFError:
        process = running.pop(pipe)
        end([process])
        if process.exitcode:
            raise TryAgain(
                f"a process of this job ended with exit code {process.exitcode}, perhaps for want of memory; "
                "run the same command to go on"
            ) from None
        return
    if isinstance(said, BaseException):
        raise said
    yield said


def _do(work: Work, pipe: Connection) -> None:
    runtime.install_stop_handlers()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this
    threading.Thread(target=leave_with_parent, daemon=True).start()
    try:
        work(pipe.send)
    except Exception as error:  # noqa: BLE001 - raised by whoever started this
        if not isinstance(error, PhotozError):
            error.add_note(traceback.format_exc())
        pipe.send(error)


def end(others: Sequence[BaseProcess]) -> None:
    """Wait for processes to leave; one that does not is killed."""
    for process in others:
        process.join(_LEAVE_S)
        if process.is_alive():
            process.kill()
            process.join()


def leave_with_parent() -> None:
    """Wait for whoever started this process, and end it then: it has nobody left to work for. For a thread."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(ExitCode.TRY_AGAIN)
