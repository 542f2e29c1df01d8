"""The folder of one fingerprint: payload, intermediates and checkpoints, in which no file is ever overwritten."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from photoz.artifacts.artifact import check
from photoz.artifacts.manifest import FileEntry, sha256_hex
from photoz.artifacts.refs import again_name, state_name
from photoz.artifacts.store import NoSuchKey, Store
from photoz.errors import MissingArtifact, TryAgain
from photoz.runtime import check_stop

log = logging.getLogger("photoz.artifacts")

_STATE_BYTES = 2**34  # checkpoints of the largest networks


@dataclass(frozen=True)
class DataFolder:
    """`prefix` is the folder's key in the store, with a slash at its end."""

    store: Store
    prefix: str

    def describe(self, name: str, source: bytes | Path, rows: int | None = None, volatile: bool = False) -> FileEntry:
        """What the file will be in a manifest or receipt."""
        if isinstance(source, bytes):
            size, digest = len(source), sha256_hex(source)
        else:
            with source.open("rb") as file:
                size, digest = source.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(path=self.prefix + name, bytes=size, sha256=digest, rows=rows, volatile=volatile)

    def write(self, entry: FileEntry, source: bytes | Path) -> FileEntry:
        """Create the file and return what is there: of a volatile one, what came first."""
        if self.store.create(entry.path, source):
            return entry
        if entry.volatile:
            return self.describe(entry.name, self.store.get(entry.path), entry.rows, volatile=True)
        if check(self.store, entry) is None:
            return entry
        # Somebody else's attempt, alive or dead, on other hardware or of another day. Theirs may yet be published:
        # it stays as it is, and the receipts say whose files count.
        again = entry.model_copy(update={"path": self.prefix + again_name(entry.name, entry.sha256)})
        if not self.store.create(again.path, source) and check(self.store, again) is not None:
            raise TryAgain(f"{self.store.url}: {again.path}: holds other bytes than its name says; remove it")
        log.info("%s: another attempt made other bytes; this one's are kept beside them", entry.name)
        return again

    def read(self, entry: FileEntry) -> bytes:
        """A small file's bytes, checked. Raises MissingArtifact if it is gone, TryAgain if it comes out damaged."""
        try:
            data = self.store.get(entry.path)
        except NoSuchKey:
            raise self.gone(entry.path) from None
        if sha256_hex(data) != entry.sha256:
            raise TryAgain(f"{self.store.url}: {entry.path}: came out damaged; run the same command again")
        return data

    def check_complete(self, files: Iterable[FileEntry]) -> None:
        """Raises MissingArtifact if a file has gone since its receipt was written, Preempted when asked to stop."""
        missing = {entry.path: entry.bytes for entry in files}
        for _ in range(2):  # nothing protects a listing's bytes: a file that seems gone is looked for once more
            for item in self.store.list(self.prefix) if missing else ():
                check_stop()
                if missing.get(item.key) == item.bytes:
                    del missing[item.key]
        for key in sorted(missing):
            raise self.gone(key)

    def gone(self, key: str) -> MissingArtifact:
        """The error for a file that should be there."""
        return MissingArtifact(
            f"{self.store.url}: {key}: gone since it was made; if no job is at work there, clear the draft with "
            "`photoz-job artifacts gc --older-than 0 --yes` and run the job again"
        )

    # Checkpoints, the only files that may be replaced

    def save_state(self, name: str, source: bytes | Path) -> None:
        """Keep a checkpoint, replacing the one of that name as a whole."""
        self.store.put(self.prefix + state_name(name), source)

    def load_state(self, name: str) -> bytes | None:
        """The checkpoint of that name; None if there is none."""
        try:
            return self.store.get(self.prefix + state_name(name), limit=_STATE_BYTES)
        except NoSuchKey:
            return None

    def create_state(self, name: str, data: bytes) -> bytes:
        """The checkpoint of that name: `data`, or what was there first."""
        key = self.prefix + state_name(name)
        return data if self.store.create(key, data) else self.store.get(key)

    def states(self, start: str) -> list[str]:
        """Names of the checkpoints that start with `start`, sorted."""
        folder = self.prefix + state_name("")
        return sorted(item.key.removeprefix(folder) for item in self.store.list(folder + start))

    def drop_state(self, name: str) -> None:
        """Remove a checkpoint."""
        self.store.delete(self.prefix + state_name(name))
