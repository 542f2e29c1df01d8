"""Who works on a slice, and why one ended without being done: notes for people, see `photoz-job artifacts status`."""

import logging
import socket
from datetime import UTC, datetime
from typing import Any

from photoz.artifacts.manifest import canonical_json
from photoz.artifacts.refs import failed_name
from photoz.artifacts.store import Store
from photoz.errors import PhotozError
from photoz.redaction import shown
from photoz.runtime import TaskSlice, scheduler

log = logging.getLogger("photoz.artifacts")

_MOST_CHARACTERS = 1000


def about_process(task: TaskSlice) -> dict[str, Any]:
    """This process as its claims and notes tell it."""
    return {"task": task.index, "tasks": task.count, "host": socket.gethostname(), "scheduler": scheduler()}


def keep_failure(store: Store, folder: str, task: TaskSlice, error: BaseException, receipt_written: bool) -> None:
    """Leave a note in the data folder on how the slice ended; a store that fails now gets none.

    Nothing removes it when the slice is redone: a receipt that is newer says that it is done. `receipt_written`: this
    process wrote the receipt, and failed later, in the commit.
    """
    code = int(error.exit_code) if isinstance(error, PhotozError) else None
    text = str(error) if isinstance(error, PhotozError) else f"{type(error).__name__}: {error}"
    text = text.encode("utf-8", "replace").decode()  # it may name a file whose bytes are no UTF-8
    ended = {
        "exit_code": code,
        "message": shown(" ".join(text.split()))[:_MOST_CHARACTERS],
        "at": f"{datetime.now(UTC):%FT%TZ}",
    }
    about = about_process(task) | ended | {"receipt_written": receipt_written}
    try:
        store.put(folder + failed_name(task.index, task.count), canonical_json(about))
    except PhotozError as failed:
        log.debug("no note on how the slice ended: %s", failed)
