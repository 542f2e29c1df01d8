"""The line that says why a job failed: on stderr as text or JSON, and where Kubernetes shows it."""

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from photoz import runtime
from photoz.redaction import shown

MOST_BYTES = 4096  # what Kubernetes keeps of a termination log

_as_json = False
_about: dict[str, Any] = {}


def speak_of(arguments: list[str]) -> None:
    """Start anew with a command line: its log format counts even where it has mistakes."""
    global _as_json
    given = [text.partition("=")[2] for text in arguments if text.startswith("--log-format=")]
    given += [value for flag, value in pairwise(arguments) if flag == "--log-format"]
    _as_json = (given[-1] if given else runtime.variable("PHOTOZ_LOG_FORMAT")) == "json"
    _about.clear()
    _about.update(job=None, task=None, tasks=None, ref=None)
    runtime.say_at_forced_end(_line)


def add(**facts: Any) -> None:
    """What is known by now of the job: its name, its slice, the ref of what it makes."""
    _about.update(facts)


def say(message: str, code: int, trace: str | None = None) -> int:
    """Say why the process ends with `code`, after the traceback of a bug. Returns the code."""
    text = _line(message, code, trace)
    if trace and not _as_json:
        text = shown(trace).encode("utf-8", "backslashreplace") + b"\n" + text
    if sys.stderr is not None:  # closed by whoever started the process
        with suppress(OSError, ValueError):
            sys.stderr.write(text.decode())
            sys.stderr.flush()
    return int(code)


def _line(message: str, code: int, trace: str | None = None) -> bytes:
    """The line, which is left in the termination log, too."""
    text = f"photoz-job: error: {shown(' '.join(message.split()))}"
    _leave_for_kubernetes(text)
    if not _as_json:
        return f"{text}\n".encode("utf-8", "backslashreplace")
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": now, "level": "error", "logger": "photoz.job", "message": shown(" ".join(message.split()))}
    line |= _about | {"exit_code": int(code)} | ({"traceback": shown(trace)} if trace else {})
    return (json.dumps(line) + "\n").encode()


def _leave_for_kubernetes(text: str) -> None:
    path = runtime.termination_log()
    if path is None:
        return
    # Of several ranks in one pod the first has the reason: the others fail because it has gone.
    with suppress(OSError):
        if not (runtime.one_of_several() and path.stat().st_size):
            path.write_bytes(text.encode("utf-8", "backslashreplace")[:MOST_BYTES].decode("utf-8", "ignore").encode())
