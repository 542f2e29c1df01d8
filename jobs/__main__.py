"""Entry point of photoz-job, also as `python -m jobs`."""

import codecs
import os
import sys
from collections.abc import Callable
from typing import Any

from photoz import runtime
from photoz.errors import BadInput


def main() -> None:
    """Run the command line and leave with its exit code."""
    _open_what_is_closed()
    runtime.let_threads_sleep()
    # Before the imports below, which take a second or two: a stop signal must not fall into them.
    runtime.install_stop_handlers()
    from jobs.app import app
    from jobs.session import exit_code_of, leave

    leave(exit_code_of(lambda: _in_this_locale(app)))


def _in_this_locale(app: Callable[..., Any]) -> Any:
    """What the app returns: its exit code, if any.

    Raises BadInput for a file's name that the locale's encoding, which is none of Unicode, lacks.
    """
    try:
        return app(standalone_mode=False)
    except UnicodeEncodeError as error:
        encoding = codecs.lookup(sys.getfilesystemencoding()).name
        if encoding == "utf-8" or codecs.lookup(error.encoding).name != encoding:
            raise
        raise BadInput(
            f"the name {error.object!r} can't be written in this locale ({encoding}); set LC_ALL=C.UTF-8, or "
            "PYTHONUTF8=1, and run the same command"
        ) from None


def _open_what_is_closed() -> None:
    """Put /dev/null in place of a closed stdin, stdout or stderr, or the next file opened would get its output."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # a terminal that can't show a character stops no job
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
