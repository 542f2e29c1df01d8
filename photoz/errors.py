"""What can go wrong, grouped by what the caller or the scheduler does next."""

from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """slurm/ and k8s/ match on these numbers: never renumber one."""

    DONE = 0
    BUG = 1
    BAD_INPUT = 2  # as a usage error
    MISSING_ARTIFACT = 3
    CONFLICT = 4
    BAD_FORMAT = 5
    TRY_AGAIN = 75  # transient: the same command may succeed later
    PREEMPTED = 85  # state saved: start again, it costs nothing


class PhotozError(Exception):
    """Base of every error that a job reports as one line: what, which value, what was expected, what to do."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG


class BadInput(PhotozError):
    """The user's input or settings can't work; running the same again won't help."""

    exit_code = ExitCode.BAD_INPUT


class MissingArtifact(PhotozError):
    """An input artifact does not exist yet, or is incomplete."""

    exit_code = ExitCode.MISSING_ARTIFACT


class Conflict(PhotozError):
    """Going on would change a published version."""

    exit_code = ExitCode.CONFLICT


class BadFormat(PhotozError):
    """A stored artifact is broken, or of a format newer than this program."""

    exit_code = ExitCode.BAD_FORMAT


class TryAgain(PhotozError):
    """A transient failure outlasted its retries."""

    exit_code = ExitCode.TRY_AGAIN


class Preempted(PhotozError):
    """The scheduler asked the job to stop, and its state is saved."""

    exit_code = ExitCode.PREEMPTED


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean val?` for the known name that is closest to `word`; nothing where none is close.

    A `prefix` that all have is left out of the comparison: it would make them all look alike.
    """
    bare, names = word.removeprefix(prefix), [name.removeprefix(prefix) for name in known]
    longer = [name for name in names if len(bare) > 1 and name.lower().startswith(bare.lower())]
    close = longer or get_close_matches(bare, names, n=1) or get_close_matches(bare.lower(), names, n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
