"""Entry point of photoz-job, also as `python -m jobs`."""

import io
import sys

from photoz import runtime


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Before the imports below, which take a second or two: a stop signal must not fall into them.
    runtime.install_stop_handlers()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that can't show a character stops no job
    from jobs.app import app
    from jobs.session import exit_code_of, leave

    leave(exit_code_of(lambda: app(standalone_mode=False)))


if __name__ == "__main__":
    main()
