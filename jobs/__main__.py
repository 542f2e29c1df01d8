"""Entry point of photoz-job, also as `python -m jobs`."""

import os
import sys

from photoz import runtime


def main() -> None:
    """Run the command line and leave with its exit code."""
    _open_what_is_closed()
    # Before the imports below, which take a second or two: a stop signal must not fall into them.
    runtime.install_stop_handlers()
    from jobs.app import app
    from jobs.session import exit_code_of, leave

    leave(exit_code_of(lambda: app(standalone_mode=False)))


def _open_what_is_closed() -> None:
    """Put /dev/null in place of a closed stdin, stdout or stderr, or the next file opened would get its output."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
