"""From a job's pieces to one published version: draft, receipts, commit.

Nothing here is visible to readers until the manifest is created, the last step. What a job that died had
finished is found again by its fingerprint. No file is ever overwritten: of two processes that make the same file,
the second finds it there, and one that makes it differently writes its own beside it.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from photoz.artifacts.artifact import Artifact, Numbers, is_removed, load, numbers
from photoz.artifacts.changes import unlike
from photoz.artifacts.claims import Claim
from photoz.artifacts.data_folder import DataFolder
from photoz.artifacts.failures import about_process, keep_failure
from photoz.artifacts.finished import Finished
from photoz.artifacts.manifest import (
    FileEntry,
    Input,
    Manifest,
    canonical_json,
    fingerprint_of,
    payload_digest,
)
from photoz.artifacts.probe import ensure_conditional_create
from photoz.artifacts.provenance import current_producer
from photoz.artifacts.receipts import PieceReceipt, SliceReceipt, encode, read_receipt
from photoz.artifacts.refs import (
    PIECES,
    PLAN,
    Ref,
    check_name,
    check_payload_name,
    data_prefix,
    fingerprint_key,
    manifest_key,
    piece_receipt_name,
    slice_receipt_name,
    stage_name,
)
from photoz.artifacts.store import NoSuchKey, Store
from photoz.errors import BadFormat, BadInput, Conflict, MissingArtifact, PhotozError
from photoz.ordered import in_order
from photoz.runtime import TaskSlice

log = logging.getLogger("photoz.artifacts")

_READERS = 16  # small objects at once: latency, not work
_READS_A_THREAD = 4  # for fewer, a thread is not worth its start

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Destination:
    """Where a job writes: store and name, which slice of the work is its own, and whether `exists` will do."""

    store: Store
    name: str
    task: TaskSlice = field(default_factory=TaskSlice)
    force: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.force and self.task.count > 1:
            raise BadInput(
                f"--force with {self.task.count} tasks: each would publish a version of its own; "
                "remove the old version first (`photoz-job artifacts rm`), or write under another --name"
            )


@dataclass(frozen=True)
class Outcome:
    """What a job says at its end: `created`, `exists` (nothing to do) or `partial` (other slices are not done)."""

    artifact: str
    status: str
    payload_sha256: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """The outcome for the JSON line on stdout."""
        return asdict(self)


class Draft:
    """An artifact in the making; use as a context manager. See `begin`. Several threads may make its pieces."""

    def __init__(
        self,
        dest: Destination,
        ref: Ref,
        fingerprint: str,
        settings: dict[str, Any],
        inputs: Sequence[Artifact],
        claimed: bool = True,
    ) -> None:
        self.fingerprint = fingerprint
        self._dest, self._ref, self._settings, self._inputs = dest, ref, settings, inputs
        self._folder = DataFolder(dest.store, data_prefix(ref.kind, ref.name, fingerprint))
        self._finished: dict[str, PieceReceipt] = {}
        self._loose: dict[str, FileEntry] = {}
        self._manifests: dict[int, Manifest | None] = {}
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._have_all_receipts = dest.task.count == 1
        self._receipt_written = False
        self._claim = Claim(dest.store, self._folder.prefix, about_process(dest.task))
        there = numbers(dest.store, ref)
        self._twin = self._same_fingerprint(there)
        if self._twin and not dest.force and self._twin.version != there.published[-1]:
            log.warning(
                "%s has these settings and inputs, but the latest is v%d, which jobs read that name no version: give "
                "them %s, or publish it anew with --force",
                ref.at(self._twin.version), there.published[-1], ref.at(self._twin.version),
            )  # fmt: skip
        self.published = self._outcome("exists", self._twin) if self._twin and not dest.force else None
        if claimed and not self.published:
            ensure_conditional_create(dest.store)
            self._claim.take()

    @classmethod
    def begin(
        cls,
        dest: Destination,
        *,
        kind: str,
        recipe: int,
        settings: dict[str, Any],
        inputs: Sequence[Artifact] = (),
        claimed: bool = True,
    ) -> "Draft":
        """Start, or take up again, the artifact that these settings and inputs decide.

        `recipe` is the job's own number, raised whenever the same settings come to give other bytes. If a version
        with the same fingerprint exists, `published` is its outcome and there is nothing to do (unless forced).
        """
        plain = json.loads(canonical_json(settings))
        fingerprint = fingerprint_of(kind, recipe, plain, [artifact.payload_sha256 for artifact in inputs])
        return cls(dest, Ref(kind, dest.name), fingerprint, plain, inputs, claimed)

    @classmethod
    def existing(
        cls, dest: Destination, *, kind: str, recipe: int, settings: dict[str, Any], inputs: Sequence[Artifact] = ()
    ) -> Outcome | None:
        """The outcome of `begin` where there is nothing to do; None where there is. It starts no draft."""
        return cls.begin(dest, kind=kind, recipe=recipe, settings=settings, inputs=inputs, claimed=False).published

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.published and self._claim.release() and error is not None:
            keep_failure(self._store, self._prefix, self._dest.task, error, self._receipt_written)
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    @property
    def scratch(self) -> Path:
        """A local folder for files in the making; gone when the draft is left."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="photoz-")
        return Path(self._scratch.name)

    # Files

    def put(self, name: str, source: bytes | Path, *, rows: int | None = None, volatile: bool = False) -> FileEntry:
        """Write a payload file. Raises Conflict if it differs from that of a published version.

        A volatile file (wall-clock figures) is written once: a second attempt keeps the first one's.
        """
        entry = self._folder.describe(check_payload_name(name), source, rows, volatile)
        published = next((file for file in self._twin.files if file.name == name), None) if self._twin else None
        if published and not volatile and published.sha256 != entry.sha256:
            raise self._would_change(name)
        self._loose[name] = published or self._folder.write(entry, source)
        return self._loose[name]

    def put_stage(self, name: str, source: bytes | Path) -> FileEntry:
        """Write an intermediate file for the merge step; it is not part of the payload."""
        return self._folder.write(self._folder.describe(stage_name(check_payload_name(name)), source), source)

    def stage(self, entry: FileEntry) -> bytes:
        """An intermediate file that any slice has put, as its piece's receipt names it; MissingArtifact if gone."""
        return self._folder.read(entry)

    def stages(self, receipts: Sequence[PieceReceipt]) -> Iterator[bytes]:
        """The intermediate files of these pieces, in order, read by threads; raises as `stage`, and Preempted."""
        return _at_once(self.stage, [entry for receipt in receipts for entry in receipt.staged])

    # Pieces and slices

    def todo(self, pieces: Sequence[str]) -> list[str]:
        """This slice's pieces that still have to be made, in order. Names must not depend on the number of slices."""
        task = self._dest.task
        mine = task.take(pieces)
        if task.index == 0:  # for people: `artifacts status` compares it with the receipts
            self._store.create(self._prefix + PLAN, canonical_json({"pieces": list(pieces)}))
        if not self._dest.force:
            # Others' receipts are no concern of a slice's: it asks for its own, one by one.
            perhaps = mine if task.count > 1 else self._with_receipts(mine)
            found = zip(perhaps, _at_once(self._stored, perhaps), strict=True)
            self._finished |= {piece: receipt for piece, receipt in found if receipt}
        return [piece for piece in mine if piece not in self._finished]

    def _with_receipts(self, pieces: Sequence[str]) -> list[str]:
        there = {item.key for item in self._store.list(self._prefix + PIECES)}
        return [piece for piece in pieces if self._receipt_key(piece) in there]

    def finish_piece(
        self,
        piece: str,
        files: Sequence[FileEntry] = (),
        facts: dict[str, Any] | None = None,
        staged: Sequence[FileEntry] = (),
    ) -> None:
        """Record that `piece` is made: its payload files, its stage files, and facts for the merge step.

        The first receipt counts: of a piece that was made twice, this draft goes on with the other one's.
        """
        receipt = PieceReceipt(piece=piece, files=tuple(files), staged=tuple(staged), facts=facts or {})
        if self._dest.force:
            self._store.put(self._receipt_key(piece), encode(receipt))
        elif not self._store.create(self._receipt_key(piece), encode(receipt)):
            receipt = self._stored(piece) or receipt
        self._finished[piece] = receipt
        for entry in files:
            self._loose.pop(entry.name, None)  # the receipt speaks for them from here on
        self._claim.renew()

    def _receipt_key(self, piece: str) -> str:
        return self._prefix + piece_receipt_name(piece)

    def _stored(self, piece: str) -> PieceReceipt | None:
        try:
            return read_receipt(self._store, self._receipt_key(piece), self._prefix, PieceReceipt)
        except NoSuchKey:
            return None

    def finish_slice(self) -> bool:
        """Record that this slice's pieces are all made; True when every slice's are, so that this one commits."""
        task = self._dest.task
        receipt = SliceReceipt(index=task.index, count=task.count, pieces=tuple(_sorted(self._finished)))
        self._store.put(self._prefix + slice_receipt_name(task.index, task.count), encode(receipt))
        self._receipt_written = True
        return Finished(self._store, self._prefix, task.count).add(task.index)

    def receipts(self) -> list[PieceReceipt]:
        """The pieces of all slices, sorted by name; call it once `finish_slice` has said True.

        Raises Preempted when asked to stop, MissingArtifact if a slice's receipt has gone since.
        """
        if not self._have_all_receipts:
            for receipt in _at_once(self._slice_receipt, range(self._dest.task.count)):
                for piece in receipt.pieces:
                    self._finished.setdefault(piece.piece, piece)
            self._have_all_receipts = True
        return _sorted(self._finished)

    def _slice_receipt(self, index: int) -> SliceReceipt:
        count = self._dest.task.count
        key = self._prefix + slice_receipt_name(index, count)
        try:
            return read_receipt(self._store, key, self._prefix, SliceReceipt)
        except NoSuchKey:
            raise MissingArtifact(
                f"{self._store.url}: {key}: gone since it was made; run that slice again (--task {index} "
                f"--tasks {count}): it makes what is missing, and publishes"
            ) from None

    def partial(self) -> Outcome:
        """This slice is done, others are not."""
        return Outcome(str(self._ref), "partial")

    # State of a job that can stop half-way inside a piece

    def save_state(self, name: str, source: bytes | Path) -> None:
        """Keep a checkpoint, replacing the one of that name as a whole."""
        self._folder.save_state(name, source)
        self._claim.renew()

    def load_state(self, name: str) -> bytes | None:
        """The checkpoint of that name; None if there is none, or if everything is to be made anew."""
        return None if self._dest.force else self._folder.load_state(name)

    def states(self, start: str = "") -> list[str]:
        """Names of the checkpoints that start with `start`, sorted; none if everything is to be made anew."""
        return [] if self._dest.force else self._folder.states(start)

    def drop_state(self, name: str) -> None:
        """Remove a checkpoint."""
        self._folder.drop_state(name)

    def agree(self, name: str, proposal: bytes) -> bytes:
        """What all slices go by: the proposal of whoever came first."""
        if self._dest.force:
            self._folder.save_state(name, proposal)
            return proposal
        return self._folder.create_state(name, proposal)

    # Commit

    def commit(self, summary: dict[str, Any]) -> Outcome:
        """Publish as the next version; if a twin with the same fingerprint was quicker, its version is the result."""
        files = {entry.name: entry for receipt in self.receipts() for entry in receipt.files} | self._loose
        payload_sha256 = payload_digest(files.values())
        self._folder.check_complete(files.values())
        while True:
            there = numbers(self._store, self._ref)
            # Looked for in just the versions that the next number is counted from: a twin that commits after this
            # listing takes that number, so the create below fails and the twin is found in the next round.
            twin = self._same_fingerprint(there)
            if twin and not self._dest.force:
                return self._outcome("exists", twin)
            if twin and twin.payload_sha256 != payload_sha256:
                raise self._would_change("the payload")
            manifest = Manifest(
                format_version=1,
                kind=self._ref.kind,  # type: ignore[arg-type]
                name=self._ref.name,
                version=there.following,
                fingerprint=self.fingerprint,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                producer=current_producer(),
                settings=self._settings,
                inputs=tuple(map(_as_input, self._inputs)),
                payload_sha256=payload_sha256,
                files=tuple(files[name] for name in sorted(files)),
                summary=json.loads(canonical_json(summary)),
            )
            ref = self._ref.at(manifest.version)
            if self._store.create(manifest_key(ref), manifest.encode()):
                if not is_removed(self._store, ref):
                    self._mark_fingerprint(ref)
                    before = self._manifest(there.published[-1]) if there.published else None
                    if before:
                        log.info("%s: %s", ref, unlike(before, manifest))
                    return self._outcome("created", manifest)
                # Since the listing, that number was published by another and removed: it stays theirs.
                self._store.delete(manifest_key(ref))

    @property
    def _store(self) -> Store:
        return self._dest.store

    @property
    def _prefix(self) -> str:
        return self._folder.prefix

    def _mark_fingerprint(self, ref: Ref) -> None:
        try:
            self._store.put(fingerprint_key(ref, self.fingerprint), b"{}")
        except PhotozError as error:
            log.debug("%s is published, without the mark that spares others to read its manifest: %s", ref, error)

    def _same_fingerprint(self, there: Numbers) -> Manifest | None:
        """The newest of the published versions that has this fingerprint; those marked with another are not read."""
        for version in reversed(there.published):
            if there.fingerprints.get(version, self.fingerprint) != self.fingerprint:
                continue
            manifest = self._manifest(version)
            if manifest and manifest.fingerprint == self.fingerprint:
                return manifest
        return None

    def _manifest(self, version: int) -> Manifest | None:
        """That of a published version, read once; None if it can't be read, or was removed meanwhile."""
        if version not in self._manifests:
            try:
                self._manifests[version] = load(self._store, self._ref.at(version)).manifest
            except MissingArtifact:
                return None
            except BadFormat as error:
                log.warning("%s; going on without it", error)
                self._manifests[version] = None
        return self._manifests[version]

    def _outcome(self, status: str, manifest: Manifest) -> Outcome:
        return Outcome(str(self._ref.at(manifest.version)), status, manifest.payload_sha256)

    def _would_change(self, what: str) -> Conflict:
        return Conflict(
            f"{self._ref}: {what} would change in a published version with the same inputs and settings "
            "(other hardware or library versions?); write under another --name"
        )


def _at_once(read: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """What `read` returns for each item, in order, by threads. Raises Preempted when asked to stop."""
    threads = min(_READERS, 1 + len(items) // _READS_A_THREAD)
    return in_order(read, items, threads, ahead=2 * threads)


def _as_input(artifact: Artifact) -> Input:
    return Input(
        ref=str(artifact.ref),
        manifest_sha256=artifact.manifest_sha256,
        payload_sha256=artifact.payload_sha256,
    )


def _sorted(receipts: dict[str, PieceReceipt]) -> list[PieceReceipt]:
    return [receipts[piece] for piece in sorted(receipts)]
