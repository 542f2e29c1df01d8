"""From a job's pieces to one published version: draft, receipts, commit.

Nothing here is visible to readers until the manifest is created, the last step. What a job that died had
finished is found again by its fingerprint.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from photoz.artifacts.artifact import Artifact, load, versions
from photoz.artifacts.manifest import (
    FileEntry,
    Input,
    Manifest,
    canonical_json,
    fingerprint_of,
    payload_digest,
    sha256_hex,
)
from photoz.artifacts.provenance import current_producer
from photoz.artifacts.refs import (
    Ref,
    check_name,
    check_payload_name,
    data_prefix,
    manifest_key,
    piece_receipt_name,
    slice_receipt_name,
    stage_name,
    state_name,
)
from photoz.artifacts.store import NoSuchKey, Store
from photoz.errors import BadFormat, Conflict, MissingArtifact
from photoz.runtime import TaskSlice


@dataclass(frozen=True)
class Destination:
    """Where a job writes: store and name, which slice of the work is its own, and whether `exists` will do."""

    store: Store
    name: str
    task: TaskSlice = field(default_factory=TaskSlice)
    force: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True)
class Outcome:
    """What a job says at its end: `created`, `exists` (nothing to do) or `partial` (other slices are not done)."""

    artifact: str
    status: str
    payload_sha256: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """The outcome for the JSON line on stdout."""
        return asdict(self)


@dataclass(frozen=True)
class PieceReceipt:
    """A finished piece of work: the payload files it wrote, and facts that the merge step needs."""

    piece: str
    files: tuple[FileEntry, ...]
    facts: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The receipt as stored."""
        return {
            "piece": self.piece,
            "files": [entry.model_dump() for entry in self.files],
            "facts": self.facts,
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "PieceReceipt":
        """A stored receipt."""
        files = tuple(FileEntry.model_validate(entry) for entry in document["files"])
        return cls(document["piece"], files, document["facts"])


class Draft:
    """An artifact in the making; use as a context manager. See `begin`."""

    def __init__(
        self,
        dest: Destination,
        ref: Ref,
        fingerprint: str,
        settings: dict[str, Any],
        inputs: Sequence[Artifact],
    ) -> None:
        self.fingerprint = fingerprint
        self._dest, self._ref, self._settings, self._inputs = dest, ref, settings, inputs
        self._prefix = data_prefix(ref.kind, ref.name, fingerprint)
        self._finished: dict[str, PieceReceipt] = {}
        self._loose: dict[str, FileEntry] = {}
        self._manifests: dict[int, Manifest] = {}
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        twin = self._same_fingerprint(versions(dest.store, ref)[0])
        self.published = self._outcome("exists", twin) if twin and not dest.force else None

    @classmethod
    def begin(
        cls,
        dest: Destination,
        *,
        kind: str,
        recipe: int,
        settings: dict[str, Any],
        inputs: Sequence[Artifact] = (),
    ) -> "Draft":
        """Start, or take up again, the artifact that these settings and inputs decide.

        `recipe` is the job's own number, raised whenever the same settings come to give other bytes. If a version
        with the same fingerprint exists, `published` is its outcome and there is nothing to do (unless forced).
        """
        plain = json.loads(canonical_json(settings))
        fingerprint = fingerprint_of(kind, recipe, plain, [artifact.payload_sha256 for artifact in inputs])
        return cls(dest, Ref(kind, dest.name), fingerprint, plain, inputs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    @property
    def scratch(self) -> Path:
        """A local folder for files in the making; gone when the draft is left."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="photoz-")
        return Path(self._scratch.name)

    # Pieces and slices

    def todo(self, pieces: Sequence[str]) -> list[str]:
        """This slice's pieces that still have to be made, in order. Names must not depend on the number of slices."""
        mine = self._dest.task.take(pieces)
        if not self._dest.force:
            self._finished |= {receipt.piece: receipt for receipt in self._stored_receipts(set(mine))}
        return [piece for piece in mine if piece not in self._finished]

    def _stored_receipts(self, wanted: set[str]) -> list[PieceReceipt]:
        start = self._prefix + piece_receipt_name("").removesuffix(".json")
        keys = [item.key for item in self._store.list(start) if item.key.endswith(".json")]
        names = {key: key.removeprefix(start).removesuffix(".json") for key in keys}
        return [self._read_receipt(key) for key, name in names.items() if name in wanted]

    def _read_receipt(self, key: str) -> PieceReceipt:
        return PieceReceipt.from_dict(_parsed(self._store.get(key), key))

    def put(self, name: str, source: bytes | Path, *, rows: int | None = None, volatile: bool = False) -> FileEntry:
        """Write a payload file. Raises Conflict if that would change a file of a published version.

        A volatile file (wall-clock figures) is written once: a second attempt keeps the first one's.
        """
        entry = _describe(self._prefix + check_payload_name(name), source, rows, volatile)
        published = self._published_entry(name)
        if published and (volatile or published.sha256 == entry.sha256):
            entry = published
        elif published:
            raise Conflict(
                f"{self._ref}: {name} would change in a published version with the same inputs and settings "
                "(other hardware or library versions?); write under another --name"
            )
        elif volatile:
            data = source if isinstance(source, bytes) else source.read_bytes()
            if not self._store.create(entry.path, data):
                entry = _describe(entry.path, self._store.get(entry.path), rows, volatile)
        else:
            self._store.put(entry.path, source)
        self._loose[name] = entry
        return entry

    def put_stage(self, name: str, source: bytes | Path) -> FileEntry:
        """Write an intermediate file for the merge step; it is not part of the payload."""
        entry = _describe(self._prefix + stage_name(check_payload_name(name)), source, None, False)
        self._store.put(entry.path, source)
        return entry

    def stage(self, name: str) -> bytes:
        """Read an intermediate file that any slice has put; MissingArtifact if it is not there."""
        try:
            return self._store.get(self._prefix + stage_name(name))
        except NoSuchKey:
            raise MissingArtifact(
                f"{self._ref}: intermediate {name!r} is gone; run the job again with --force"
            ) from None

    def finish_piece(self, piece: str, files: Sequence[FileEntry] = (), facts: dict[str, Any] | None = None) -> None:
        """Record that `piece` is made: its payload files, and facts for the merge step. It is never redone."""
        receipt = PieceReceipt(piece, tuple(files), facts or {})
        self._finished[piece] = receipt
        self._store.put(self._prefix + piece_receipt_name(piece), canonical_json(receipt.as_dict()))

    def finish_slice(self) -> bool:
        """Record that this slice's pieces are all made; True when every slice's are, so that this one commits."""
        task = self._dest.task
        document = {
            "slice": asdict(task),
            "pieces": [receipt.as_dict() for receipt in self._sorted(self._finished)],
        }
        self._store.put(self._prefix + slice_receipt_name(task.index, task.count), canonical_json(document))
        return len(self._slice_keys()) == task.count

    def _slice_keys(self) -> list[str]:
        count = self._dest.task.count
        expected = {self._prefix + slice_receipt_name(index, count) for index in range(count)}
        return [item.key for item in self._store.list(self._prefix + "parts/") if item.key in expected]

    def receipts(self) -> list[PieceReceipt]:
        """The pieces of all slices, sorted by name; call it once `finish_slice` has said True."""
        for key in self._slice_keys():
            for document in _parsed(self._store.get(key), key)["pieces"]:
                receipt = PieceReceipt.from_dict(document)
                self._finished.setdefault(receipt.piece, receipt)
        return self._sorted(self._finished)

    @staticmethod
    def _sorted(receipts: dict[str, PieceReceipt]) -> list[PieceReceipt]:
        return [receipts[piece] for piece in sorted(receipts)]

    def partial(self) -> Outcome:
        """This slice is done, others are not."""
        return Outcome(str(self._ref), "partial")

    # State of a job that can stop half-way inside a piece

    def save_state(self, name: str, source: bytes | Path) -> None:
        """Keep a checkpoint, replacing the one of that name as a whole."""
        self._store.put(self._prefix + state_name(name), source)

    def load_state(self, name: str) -> bytes | None:
        """The checkpoint of that name; None if there is none, or if everything is to be made anew."""
        if self._dest.force:
            return None
        try:
            return self._store.get(self._prefix + state_name(name))
        except NoSuchKey:
            return None

    # Commit

    def commit(self, summary: dict[str, Any]) -> Outcome:
        """Publish as the next version; if a twin with the same fingerprint was quicker, its version is the result."""
        files = {entry.name: entry for receipt in self.receipts() for entry in receipt.files} | self._loose
        while True:
            published, removed = versions(self._store, self._ref)
            # Looked for in just the versions that the next number is counted from: a twin that commits after this
            # listing takes that number, so the create below fails and the twin is found in the next round.
            twin = self._same_fingerprint(published)
            if twin and not self._dest.force:
                return self._outcome("exists", twin)
            manifest = Manifest(
                format_version=1,
                kind=self._ref.kind,  # type: ignore[arg-type]
                name=self._ref.name,
                version=max([0, *published, *removed]) + 1,
                fingerprint=self.fingerprint,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                producer=current_producer(),
                settings=self._settings,
                inputs=tuple(map(_as_input, self._inputs)),
                payload_sha256=payload_digest(files.values()),
                files=tuple(files[name] for name in sorted(files)),
                summary=json.loads(canonical_json(summary)),
            )
            if self._store.create(manifest_key(self._ref.at(manifest.version)), manifest.encode()):
                return self._outcome("created", manifest)

    @property
    def _store(self) -> Store:
        return self._dest.store

    def _same_fingerprint(self, published: Sequence[int]) -> Manifest | None:
        """The newest of the published versions that has this fingerprint."""
        for version in reversed(published):
            if version not in self._manifests:
                try:
                    self._manifests[version] = load(self._store, self._ref.at(version)).manifest
                except MissingArtifact:
                    continue  # removed in between
            if self._manifests[version].fingerprint == self.fingerprint:
                return self._manifests[version]
        return None

    def _published_entry(self, name: str) -> FileEntry | None:
        twin = self._same_fingerprint(versions(self._store, self._ref)[0])
        return next((entry for entry in twin.files if entry.name == name), None) if twin else None

    def _outcome(self, status: str, manifest: Manifest) -> Outcome:
        return Outcome(str(self._ref.at(manifest.version)), status, manifest.payload_sha256)


def _as_input(artifact: Artifact) -> Input:
    return Input(
        ref=str(artifact.ref),
        manifest_sha256=artifact.manifest_sha256,
        payload_sha256=artifact.payload_sha256,
    )


def _describe(key: str, source: bytes | Path, rows: int | None, volatile: bool) -> FileEntry:
    if isinstance(source, bytes):
        return FileEntry(path=key, bytes=len(source), sha256=sha256_hex(source), rows=rows, volatile=volatile)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path=key, bytes=source.stat().st_size, sha256=digest, rows=rows, volatile=volatile)


def _parsed(data: bytes, key: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(data)
    except ValueError:
        raise BadFormat(f"{key}: a receipt that is not JSON; remove it, or run the job with --force") from None
    return document
