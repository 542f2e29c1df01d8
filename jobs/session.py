"""From a job's outcome, or its failure, to the line on stdout, the line on stderr and the exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from typer.exceptions import Abort, Exit, TyperException

from jobs import last_words, logs
from jobs.options import JobOptions
from photoz import runtime
from photoz.errors import ExitCode, PhotozError

if TYPE_CHECKING:
    from photoz.artifacts import Outcome

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)
READER_LEFT = 141  # as shells report a pipe whose reader has gone


def run_job(options: JobOptions, job: Callable[[], Outcome]) -> None:
    """Run a job and print its outcome as the one line of JSON on stdout, of all of torchrun's processes together."""
    logs.set_up(options.log_format)
    started = time.monotonic()
    outcome = job()
    if runtime.world().rank == 0:
        print_outcome(outcome.as_dict(), started)


def print_outcome(outcome: dict[str, Any], started: float) -> None:
    """The last line of a job: its outcome and the seconds since `started` (time.monotonic)."""
    print(json.dumps(outcome | {"seconds": round(time.monotonic() - started, 1)}), flush=True)


def exit_code_of(command: Callable[[], Any]) -> int:
    """Run a command line and return its exit code; a user's mistake is one line on stderr, a bug a traceback."""
    try:
        returned = command()
    except Exit as stop:
        return stop.exit_code
    except TyperException as error:
        return last_words.say(error.format_message(), error.exit_code)
    except PhotozError as error:
        return last_words.say(str(error), error.exit_code)
    except (KeyboardInterrupt, Abort):
        return last_words.say(
            "interrupted; finished pieces are kept: run the same command to go on", runtime.INTERRUPTED
        )
    except SystemExit as stop:
        # Typer leaves this way when the reader of its output has gone (`… --help | head`).
        return READER_LEFT if isinstance(stop.__context__, BrokenPipeError) else _status(stop)
    except BrokenPipeError:
        return READER_LEFT
    except OSError as error:
        if error.errno in _DISK_FULL:
            where = f"{error.filename}: " if error.filename else ""
            return last_words.say(
                f"{where}no space left on the disk; free some and run the same command", ExitCode.TRY_AGAIN
            )
        if error.errno in _NOT_ALLOWED and error.filename:
            place = f"{error.filename}: {error.strerror}"
            return last_words.say(
                f"{place}; choose another place, or change what may be done there", ExitCode.BAD_INPUT
            )
        return _say_bug()
    except BaseException:  # noqa: BLE001 - the outermost frame: whatever is left is a bug
        return _say_bug()
    # Typer turns Ctrl-C, and its own Exit, into a value that is returned.
    if returned == runtime.INTERRUPTED:
        return _say_interrupted()
    return returned if isinstance(returned, int) else ExitCode.DONE


def leave(code: int) -> NoReturn:
    """End the process. One that was stopped doesn't wait for its threads: they may hang in a request for minutes."""
    runtime.ignore_stops()
    if code in (ExitCode.PREEMPTED, runtime.INTERRUPTED):
        os._exit(code)
    sys.exit(code)


def _status(stop: SystemExit) -> int:
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _say_interrupted() -> int:
    return last_words.say("interrupted; finished pieces are kept: run the same command to go on", runtime.INTERRUPTED)


def _say_bug() -> int:
    return last_words.say(
        "this is a bug in photoz; please report it with its traceback", ExitCode.BUG, traceback.format_exc()
    )
