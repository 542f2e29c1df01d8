"""Which program, on which machine, is writing."""

import shlex
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import photoz
from photoz import runtime
from photoz.artifacts.manifest import Producer
from photoz.redaction import redacted_arguments


def current_producer() -> Producer:
    """This process as a manifest's producer."""
    commit, image = runtime.image_identity()
    return Producer(
        package="photoz",
        package_version=photoz.__version__,
        commit=commit or _checkout_commit(),
        image=image,
        command=_writable(shlex.join([Path(sys.argv[0]).name, *redacted_arguments(sys.argv[1:])])),
        host=socket.gethostname(),
        scheduler=runtime.scheduler(),
    )


def _writable(text: str) -> str:
    """The text without the bytes of file names that are no UTF-8, which a manifest can't hold."""
    return text.encode("utf-8", "replace").decode()


@cache
def _checkout_commit() -> str | None:
    """Commit of the checkout that this package runs from, with `-dirty` for local changes; None if there is none."""
    checkout = Path(photoz.__file__).parent.parent
    if not (checkout / ".git").exists():
        return None
    describe = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(describe, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
