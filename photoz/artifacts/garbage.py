"""What jobs that died or finished have left in a store and nothing needs, and its removal."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from photoz.artifacts.artifact import load, refs
from photoz.artifacts.claims import clear
from photoz.artifacts.file_store import TEMPORARY
from photoz.artifacts.probe import PREFIX
from photoz.artifacts.refs import CLAIMS, CLEARING, KINDS, data_prefix, is_payload
from photoz.artifacts.store import Store, StoredObject
from photoz.errors import BadFormat, MissingArtifact

log = logging.getLogger("photoz.artifacts")

_DEAD_WRITE = "temporary file of a write that died"


@dataclass(frozen=True)
class Garbage:
    """An object that no published version needs, and why. `folder` is its data folder, None outside of any."""

    key: str
    bytes: int
    reason: str
    folder: str | None = None


def garbage(store: Store, older_than_s: float) -> list[Garbage]:
    """What may be deleted: leftovers of unfinished or dead jobs that nothing has touched for `older_than_s` seconds.

    Payloads, receipts and manifests of published versions are never among them, nor is anything under a name with a
    manifest that can't be read: what that one needs is not known.
    """
    newest = time.time() - older_than_s
    probes = (item for item in store.list(PREFIX) if item.modified <= newest)
    found = [Garbage(item.key, item.bytes, "of a probe that died") for item in probes]
    for kind in KINDS:
        for name, objects in _by_name(store, kind).items():
            try:
                payloads = published_files(store, kind, name)
            except BadFormat as error:
                log.warning("%s; nothing under %s/%s is called garbage", error, kind, name)
                continue
            found += _dead_commits(objects, newest)
            for fingerprint, items in _by_fingerprint(kind, name, objects).items():
                found += _unneeded(data_prefix(kind, name, fingerprint), items, payloads.get(fingerprint), newest)
    return sorted(found, key=lambda item: item.key)


def delete_garbage(store: Store, found: Sequence[Garbage], older_than_s: float) -> list[Garbage]:
    """Delete what is still garbage by the time its folder is closed to jobs, and return it."""
    deleted: list[Garbage] = []
    for folder in sorted({item.folder for item in found if item.folder}):
        deleted += _clear_folder(store, folder, older_than_s)
    for item in found:
        if item.folder is None:
            store.delete(item.key)
            deleted.append(item)
    return deleted


def _clear_folder(store: Store, folder: str, older_than_s: float) -> list[Garbage]:
    kind, name, _, fingerprint = folder.rstrip("/").split("/")
    newest = time.time() - older_than_s
    there: dict[str, Garbage] = {}

    def unneeded(items: Sequence[StoredObject]) -> list[str]:
        # The manifests are read anew: a job may have published since the folder was called garbage.
        payload = published_files(store, kind, name).get(fingerprint)
        there.update({item.key: item for item in _unneeded(folder, items, payload, newest)})
        return list(there)

    cleared = clear(store, folder, unneeded, dead_after_s=older_than_s)
    if cleared is None:
        log.info("%s: a job is at work there", folder)
    return [there[key] for key in cleared or ()]


def published_files(store: Store, kind: str, name: str) -> dict[str, set[str]]:
    """Payload keys by fingerprint, over the published versions of one kind and name."""
    found: dict[str, set[str]] = {}
    for ref in refs(store, kind):
        if ref.name == name:
            try:
                manifest = load(store, ref).manifest
            except MissingArtifact:
                continue  # removed since it was listed
            found.setdefault(manifest.fingerprint, set()).update(entry.path for entry in manifest.files)
    return found


def _by_name(store: Store, kind: str) -> dict[str, list[StoredObject]]:
    names: dict[str, list[StoredObject]] = {}
    for item in store.list(f"{kind}/"):
        names.setdefault(item.key.split("/")[1], []).append(item)
    return names


def _by_fingerprint(kind: str, name: str, objects: list[StoredObject]) -> dict[str, list[StoredObject]]:
    folders: dict[str, list[StoredObject]] = {}
    start = f"{kind}/{name}/data/"
    for item in objects:
        if item.key.startswith(start) and "/" in item.key.removeprefix(start):
            folders.setdefault(item.key.removeprefix(start).split("/")[0], []).append(item)
    return folders


def _dead_commits(objects: list[StoredObject], newest: float) -> Iterator[Garbage]:
    """Temporary files beside manifests, outside of any data folder."""
    for item in objects:
        folder, _, file = item.key.rpartition("/")
        if file.startswith(TEMPORARY) and "/data/" not in folder and item.modified <= newest:
            yield Garbage(item.key, item.bytes, _DEAD_WRITE)


def _unneeded(folder: str, items: Sequence[StoredObject], payload: set[str] | None, newest: float) -> Iterator[Garbage]:
    # A draft is alive as long as any of its files is young: it is judged as a whole.
    if not items or max(item.modified for item in items) > newest:
        return
    for item in items:
        relative = item.key.removeprefix(folder)
        if item.key.rpartition("/")[2].startswith(TEMPORARY):
            reason = _DEAD_WRITE
        elif relative.startswith((CLAIMS, CLEARING)):
            reason = "mark of a job that died"
        elif payload is None:
            reason = "of a job that has not published"
        elif item.key not in payload and (is_payload(relative) or relative.startswith(("stage/", "state/"))):
            reason = "work in between, no longer needed"
        else:
            continue
        yield Garbage(item.key, item.bytes, reason, folder)
