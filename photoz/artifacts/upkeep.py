"""Looking after a store: verify, export, compare, remove, and find what nothing refers to."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photoz import progress
from photoz.artifacts.artifact import Artifact, check, copy, load, refs
from photoz.artifacts.file_store import TEMPORARY
from photoz.artifacts.manifest import canonical_json
from photoz.artifacts.refs import KINDS, Ref, data_prefix, is_payload, manifest_key, removed_key
from photoz.artifacts.store import Store, StoredObject
from photoz.errors import BadFormat, BadInput, Conflict, MissingArtifact


def verify(artifact: Artifact) -> int:
    """Read every byte of the payload and return how many there were.

    Raises BadFormat naming every file that is missing, altered or of another length.
    """
    problems = []
    total = sum(entry.bytes for entry in artifact.entries)
    with progress.stage(f"verify {artifact.ref}", total, "bytes") as bar:
        for entry in artifact.entries:
            problem = check(artifact.store, entry)
            if problem:
                problems.append(f"{entry.path}: {problem}")
            bar.advance(entry.bytes)
    if problems:
        raise BadFormat(f"{artifact.ref}: {'; '.join(problems)}; restore from a copy, or make a new version")
    return total


def export(artifact: Artifact, folder: Path) -> list[Path]:
    """Copy the payload and the manifest into `folder`, which must be empty or absent; returns the files written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder}: expected an empty or absent folder to export to")
    written = []
    with progress.stage(f"export {artifact.ref}", len(artifact.entries), "files") as bar:
        for entry in artifact.entries:
            target = folder / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            problem = copy(artifact.store, entry, target)
            if problem:
                target.unlink()
                raise BadFormat(f"{artifact.ref}: {entry.path}: {problem}; not exported")
            written.append(target)
            bar.advance()
    written.append(folder / "manifest.json")
    written[-1].write_bytes(artifact.manifest.encode())
    return written


def differences(left: Artifact, right: Artifact) -> list[tuple[str, str, str]]:
    """(what, left value, right value) wherever two artifacts' settings, inputs, files and summaries differ."""
    mine, theirs = _facts(left), _facts(right)
    return [
        (what, mine.get(what, "–"), theirs.get(what, "–"))
        for what in sorted(mine.keys() | theirs.keys())
        if mine.get(what) != theirs.get(what)
    ]


def _facts(artifact: Artifact) -> dict[str, str]:
    facts = {"payload_sha256": artifact.payload_sha256, "fingerprint": artifact.manifest.fingerprint}
    for part, values in (("settings", artifact.settings), ("summary", artifact.summary)):
        facts |= {f"{part}.{name}": _text(value) for name, value in values.items()}
    facts |= {f"input {made_from.ref.split('/')[0]}": made_from.ref for made_from in artifact.manifest.inputs}
    facts |= {f"file {entry.name}": entry.sha256[:12] for entry in artifact.entries if not entry.volatile}
    return facts


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def users_of(store: Store, ref: Ref) -> list[Ref]:
    """The artifacts that name `ref` as an input."""
    return [
        other
        for other in refs(store)
        if any(made_from.ref == str(ref) for made_from in load(store, other).manifest.inputs)
    ]


def remove(artifact: Artifact, force: bool = False) -> int:
    """Remove one version, and its payload unless another version shares it; returns the number of files deleted.

    Raises Conflict while another artifact names it as input, unless forced. Its number is never used again.
    """
    store, ref = artifact.store, artifact.ref
    users = users_of(store, ref)
    if users and not force:
        raise Conflict(f"{ref}: is the input of {', '.join(map(str, users))}; remove those first, or use --force")
    store.create(removed_key(ref), canonical_json({"removed": str(ref), "payload_sha256": artifact.payload_sha256}))
    store.delete(manifest_key(ref))
    if artifact.manifest.fingerprint in _fingerprints(store, ref.kind, ref.name):
        return 0
    doomed = [item.key for item in store.list(data_prefix(ref.kind, ref.name, artifact.manifest.fingerprint))]
    for key in doomed:
        store.delete(key)
    return len(doomed)


def _fingerprints(store: Store, kind: str, name: str) -> dict[str, set[str]]:
    """Payload keys by fingerprint, over the published versions of one kind and name."""
    found: dict[str, set[str]] = {}
    for ref in refs(store, kind):
        if ref.name == name:
            manifest = load(store, ref).manifest
            found.setdefault(manifest.fingerprint, set()).update(entry.path for entry in manifest.files)
    return found


_DEAD_WRITE = "temporary file of a write that died"


@dataclass(frozen=True)
class Garbage:
    """An object that no published version needs, and why."""

    key: str
    bytes: int
    reason: str


def garbage(store: Store, older_than_s: float) -> list[Garbage]:
    """What `gc` may delete: leftovers of unfinished or dead jobs that nothing has touched for `older_than_s` seconds.

    Payloads, receipts and manifests of published versions are never among them.
    """
    newest_allowed = time.time() - older_than_s
    found: list[Garbage] = []
    for kind in KINDS:
        for name, objects in _by_name(store, kind).items():
            published = _fingerprints(store, kind, name)
            found += _dead_commits(objects, newest_allowed)
            for fingerprint, items in _by_fingerprint(kind, name, objects).items():
                # A draft is alive as long as any of its files is young: it is judged as a whole.
                if max(item.modified for item in items) <= newest_allowed:
                    found += _unneeded(data_prefix(kind, name, fingerprint), items, published.get(fingerprint))
    return sorted(found, key=lambda item: item.key)


def _by_name(store: Store, kind: str) -> dict[str, list[StoredObject]]:
    names: dict[str, list[StoredObject]] = {}
    for item in store.list(f"{kind}/"):
        names.setdefault(item.key.split("/")[1], []).append(item)
    return names


def _dead_commits(objects: list[StoredObject], newest_allowed: float) -> Iterator[Garbage]:
    """Temporary files beside manifests, outside of any data folder."""
    for item in objects:
        folder, _, file = item.key.rpartition("/")
        if file.startswith(TEMPORARY) and "/data/" not in folder and item.modified <= newest_allowed:
            yield Garbage(item.key, item.bytes, _DEAD_WRITE)


def _by_fingerprint(kind: str, name: str, objects: list[StoredObject]) -> dict[str, list[StoredObject]]:
    folders: dict[str, list[StoredObject]] = {}
    start = f"{kind}/{name}/data/"
    for item in objects:
        if item.key.startswith(start):
            folders.setdefault(item.key.removeprefix(start).split("/")[0], []).append(item)
    return folders


def _unneeded(prefix: str, items: list[StoredObject], payload: set[str] | None) -> Iterator[Garbage]:
    for item in items:
        relative = item.key.removeprefix(prefix)
        if item.key.rpartition("/")[2].startswith(TEMPORARY):
            yield Garbage(item.key, item.bytes, _DEAD_WRITE)
        elif payload is None:
            yield Garbage(item.key, item.bytes, "of a job that has not published")
        elif item.key not in payload and (is_payload(relative) or relative.startswith(("stage/", "state/"))):
            yield Garbage(item.key, item.bytes, "work in between, no longer needed")


def listing(store: Store, kind: str | None = None) -> list[dict[str, Any]]:
    """One row a published version: ref, creation time, files, bytes, payload digest, producer's version."""
    rows = []
    for ref in refs(store, kind):
        try:
            manifest = load(store, ref).manifest
        except MissingArtifact:
            continue  # removed since it was listed
        rows.append(
            {
                "artifact": str(ref),
                "created_at": manifest.created_at,
                "files": len(manifest.files),
                "bytes": sum(entry.bytes for entry in manifest.files),
                "payload_sha256": manifest.payload_sha256,
                "photoz": manifest.producer.package_version,
            }
        )
    return rows
