"""How far artifacts in the making are, from the store alone: what is done, at work, failed or missing."""

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from photoz.artifacts.artifact import Numbers, load, numbers
from photoz.artifacts.claims import DEAD_AFTER_S
from photoz.artifacts.refs import CLAIMS, FAILED, KINDS, PIECES, PLAN, Ref, artifact_prefix, data_prefix
from photoz.artifacts.store import NoSuchKey, Store, StoredObject
from photoz.errors import BadInput, ExitCode, MissingArtifact, PhotozError

DONE, AT_WORK, FAILED_STATE, STOPPED, MISSING = "done", "at work", "failed", "stopped", "missing"
_NOTE_BYTES, _MOST_SLICES = 2**26, 10**6
_SLICE = re.compile(r"(?:failed/)?(\d{5,})-of-(\d{5,})\.json")
_CHECKPOINT = re.compile(r"state/training-(\d{8,})-[0-9a-f]{16}\.pt")


@dataclass(frozen=True)
class SliceStatus:
    """A slice: its state, its pieces without a receipt, the last trace of it, and how it ended if it failed."""

    task: int
    tasks: int
    state: str
    missing: list[str]
    seconds_ago: float | None = None
    host: str | None = None
    exit_code: int | None = None
    message: str | None = None


@dataclass(frozen=True)
class DraftStatus:
    """An artifact in the making, or made: `published` is its version. `missing` is None where no plan is recorded."""

    artifact: str
    fingerprint: str
    published: str | None
    pieces: int | None
    done: list[str]
    missing: list[str] | None
    slices: list[SliceStatus]
    checkpoint_step: int | None
    seconds_ago: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def status_of(store: Store, name: str) -> list[DraftStatus]:
    """Every draft and published fingerprint of `kind/name`, or of `name` in each kind, those touched last at the end.

    Raises MissingArtifact if there is nothing under that name, BadInput for a name with a version.
    """
    ref = Ref.parse(name, None if "/" in name else KINDS[0])
    without, at, _ = name.partition("@")
    if at:
        raise BadInput(
            f"{name}: status shows all versions and drafts of a name: expected {without}; "
            "`photoz-job artifacts show` shows one version"
        )
    kinds = [ref.kind] if "/" in name else list(KINDS)
    found = [status for kind in kinds for status in _of_kind(store, Ref(kind, ref.name))]
    if not found:
        raise MissingArtifact(
            f"{name}: no job has written under that name in store {store.url}; `photoz-job artifacts ls` shows what "
            "is published; check --store and the name"
        )
    return sorted(found, key=lambda status: -status.seconds_ago)


def _of_kind(store: Store, ref: Ref) -> Iterator[DraftStatus]:
    start = artifact_prefix(ref) + "data/"
    folders: dict[str, list[StoredObject]] = {}
    for item in store.list(start):
        fingerprint, slash, _ = item.key.removeprefix(start).partition("/")
        if slash:
            folders.setdefault(fingerprint, []).append(item)
    versions = _versions(store, ref) if folders else {}
    for fingerprint, items in folders.items():
        yield _of_folder(store, ref, fingerprint, items, versions.get(fingerprint))


def _versions(store: Store, ref: Ref) -> dict[str, int]:
    """The newest version of each fingerprint."""
    there: Numbers = numbers(store, ref)
    found: dict[str, int] = {}
    for version in there.published:
        fingerprint = there.fingerprints.get(version)
        if fingerprint is None:
            try:
                fingerprint = load(store, ref.at(version)).manifest.fingerprint
            except PhotozError:
                continue  # removed meanwhile, or can't be read: `artifacts verify` tells
        found[fingerprint] = version
    return found


def _of_folder(store: Store, ref: Ref, fingerprint: str, items: list[StoredObject], version: int | None) -> DraftStatus:
    folder = data_prefix(ref.kind, ref.name, fingerprint)
    now = time.time()
    there = {item.key.removeprefix(folder): item for item in items}
    done = sorted(name.removeprefix(PIECES).removesuffix(".json") for name in there if name.startswith(PIECES))
    plan = _note(store, folder + PLAN) if PLAN in there else {}
    planned = [str(piece) for piece in plan["pieces"]] if isinstance(plan.get("pieces"), list) else None
    steps = [int(found[1]) for name in there if (found := _CHECKPOINT.fullmatch(name))]
    return DraftStatus(
        artifact=f"{ref}",
        fingerprint=fingerprint,
        published=str(ref.at(version)) if version else None,
        pieces=None if planned is None else len(planned),
        done=done,
        missing=None if planned is None else sorted(set(planned) - set(done)),
        slices=[] if version else list(_slices(store, folder, there, planned or [], set(done), now)),
        checkpoint_step=max(steps, default=None),
        seconds_ago=_ago(now, max(item.modified for item in items)),
    )


def _slices(
    store: Store, folder: str, there: dict[str, StoredObject], planned: list[str], done: set[str], now: float
) -> Iterator[SliceStatus]:
    """All slices of every count that left a trace. What was written last tells the state of a slice."""
    receipts = {key: item.modified for key, item in _by_slice(there, "parts/")}
    failed, claims = dict(_by_slice(there, FAILED)), _claims(store, there, now)
    for count in sorted({count for _, count in [*receipts, *failed, *claims]}):
        for index in range(count):
            key, missing = (index, count), [piece for piece in planned[index::count] if piece not in done]
            finished, (claimed, host) = receipts.get(key, 0.0), claims.get(key, (0.0, None))
            if claimed and claimed >= finished:
                yield SliceStatus(index, count, AT_WORK, missing, _ago(now, claimed), host)
            elif key in failed and (note := _failure_since(store, failed[key], finished)) is not None:
                yield _failed(note, SliceStatus(index, count, FAILED_STATE, missing, _ago(now, failed[key].modified)))
            elif finished:
                yield SliceStatus(index, count, DONE, missing, _ago(now, finished))
            else:
                yield SliceStatus(index, count, MISSING, missing)


def _claims(store: Store, there: dict[str, StoredObject], now: float) -> dict[tuple[int, int], tuple[float, str]]:
    """When each slice's youngest claim was written, and by which host; a claim from before all that tells no slice."""
    found: dict[tuple[int, int], tuple[float, str]] = {}
    young = [item for name, item in there.items() if name.startswith(CLAIMS) and now - item.modified < DEAD_AFTER_S]
    for item in sorted(young, key=lambda item: item.modified):
        about = _note(store, item.key)
        index, count = about.get("task"), about.get("tasks")
        if isinstance(index, int) and isinstance(count, int) and 0 <= index < count <= _MOST_SLICES:
            found[index, count] = item.modified, str(about.get("host"))
    return found


def _failure_since(store: Store, item: StoredObject, finished: float) -> dict[str, Any] | None:
    """The note if it is younger than the slice's receipt. S3 tells whole seconds: at a draw the note itself tells."""
    if item.modified < finished:
        return None
    note = _note(store, item.key)
    return note if item.modified > finished or note.get("receipt_written") else None


def _failed(note: dict[str, Any], status: SliceStatus) -> SliceStatus:
    code = note.get("exit_code")
    state = STOPPED if code == ExitCode.PREEMPTED else FAILED_STATE
    host, message = (str(note[name]) if name in note else None for name in ("host", "message"))
    return replace(status, state=state, host=host, exit_code=code if isinstance(code, int) else None, message=message)


def _by_slice(there: dict[str, StoredObject], start: str) -> Iterator[tuple[tuple[int, int], StoredObject]]:
    for name, item in there.items():
        found = _SLICE.fullmatch(name.removeprefix("parts/")) if name.startswith(start) else None
        if found and ("failed/" in name) == (start == FAILED) and int(found[1]) < int(found[2]) <= _MOST_SLICES:
            yield (int(found[1]), int(found[2])), item


def _note(store: Store, key: str) -> dict[str, Any]:
    """A small JSON object; empty if it has gone or is none."""
    try:
        found = json.loads(store.get(key, _NOTE_BYTES))
    except (NoSuchKey, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _ago(now: float, then: float) -> float:
    return round(max(0.0, now - then), 1)


def in_ranges(numbers: Iterable[int]) -> str:
    """`0-6, 9` for 0 to 6 and 9."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)
