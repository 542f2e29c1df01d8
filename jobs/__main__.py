"""Entry point of photoz-job, also as `python -m jobs`."""

import codecs
import io
import sys
from collections.abc import Callable
from typing import Any

from photoz import runtime
from photoz.errors import BadInput


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Before the imports below, which take a second or two: a stop signal must not fall into them.
    runtime.install_stop_handlers()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that can't show a character stops no job
    from jobs.app import app
    from jobs.session import exit_code_of, leave

    leave(exit_code_of(lambda: _in_this_locale(app)))


def _in_this_locale(app: Callable[..., Any]) -> None:
    """Run the app. Raises BadInput for a file's name that the locale's encoding, which is none of Unicode, lacks."""
    try:
        app(standalone_mode=False)
    except UnicodeEncodeError as error:
        encoding = codecs.lookup(sys.getfilesystemencoding()).name
        if encoding == "utf-8" or codecs.lookup(error.encoding).name != encoding:
            raise
        raise BadInput(
            f"the name {error.object!r} can't be written in this locale ({encoding}); set LC_ALL=C.UTF-8, or "
            "PYTHONUTF8=1, and run the same command"
        ) from None


if __name__ == "__main__":
    main()
