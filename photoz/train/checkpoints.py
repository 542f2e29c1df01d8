"""Where a run's checkpoints are kept: the last two, named by the steps done and by their own digest."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from photoz.artifacts import Draft
from photoz.artifacts.file_store import FileStore
from photoz.artifacts.manifest import sha256_hex
from photoz.artifacts.store import NoSuchKey
from photoz.errors import BadFormat, BadInput

log = logging.getLogger("photoz.train")

_START = "training-"
_NAME = re.compile(_START + r"(\d{8,})-([0-9a-f]{16})\.pt")
_LARGEST_BYTES = 16 * 2**30
_KEPT = 2  # the newest may turn out damaged


class Shelf(Protocol):
    """What checkpoints need of a place: a write is whole or absent, and names come sorted."""

    def save_state(self, name: str, source: bytes) -> None: ...
    def load_state(self, name: str) -> bytes | None: ...
    def states(self, start: str) -> list[str]: ...
    def drop_state(self, name: str) -> None: ...


class LocalShelf:
    """A folder of this machine, with one of its own below it for each fingerprint."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._store, self._below = FileStore(folder), f"{fingerprint}/"

    def save_state(self, name: str, source: bytes) -> None:
        """Write a file, durably, then give it its name."""
        self._store.put(self._below + name, source)

    def load_state(self, name: str) -> bytes | None:
        """The file's bytes; None if it is gone."""
        try:
            return self._store.get(self._below + name, limit=_LARGEST_BYTES)
        except NoSuchKey:
            return None

    def states(self, start: str) -> list[str]:
        """Names that begin with `start`, sorted."""
        return sorted(item.key.removeprefix(self._below) for item in self._store.list(self._below + start))

    def drop_state(self, name: str) -> None:
        """Remove a file."""
        self._store.delete(self._below + name)


def shelf_for(draft: Draft, folder: str | None, anew: bool) -> Shelf:
    """The draft's own place in the store, or a local folder. Raises BadInput for one that can't be written.

    `anew` clears the folder of this fingerprint, as --force does not look at what is in the store.
    """
    if folder is None:
        return draft
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--checkpoints {folder}: {error.strerror}; name a folder that can be written") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise BadInput(f"--checkpoints {folder}: no write access; name a folder that can be written")
    shelf = LocalShelf(path, draft.fingerprint)
    for name in shelf.states("") if anew else []:
        shelf.drop_state(name)
    return shelf


class Checkpoints:
    """The last two checkpoints of a run on a shelf; each carries the best epoch's weights, so the best is kept too."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._names: list[str] = []  # on the shelf, oldest first

    def newest(self, check: Callable[[bytes], object]) -> bytes | None:
        """The newest that is whole and that `check` takes; one that is not, or raises BadFormat, is skipped."""
        self._names = self._shelf.states(_START)
        for name in reversed(self._names):
            data = self._shelf.load_state(name)
            if data is None:
                continue  # dropped since it was listed
            try:
                _check_digest(name, data)
                check(data)
            except BadFormat as error:
                log.warning("checkpoint %s is skipped: %s", name, error)
                continue
            self._names.remove(name)
            self._names.append(name)  # the last to be dropped, whatever is skipped
            return data
        return None

    def save(self, steps_done: int, data: bytes) -> None:
        """Keep a checkpoint; only once it is in, those before the last two go."""
        name = f"{_START}{steps_done:08d}-{sha256_hex(data)[:16]}.pt"
        self._shelf.save_state(name, data)
        self._names = [*(other for other in self._names if other != name), name]
        while len(self._names) > _KEPT:
            self._shelf.drop_state(self._names.pop(0))

    def clear(self) -> None:
        """Remove them all: the model is made."""
        for name in self._names:
            self._shelf.drop_state(name)
        self._names = []


def _check_digest(name: str, data: bytes) -> None:
    named = _NAME.fullmatch(name)
    if named is None:
        raise BadFormat(f"not a name that this version gives, such as {_START}00001234-0123456789abcdef.pt")
    if sha256_hex(data)[:16] != named[2]:
        raise BadFormat("its bytes are not those that were saved")
