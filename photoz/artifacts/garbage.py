"""What jobs that died or finished have left in a store and nothing needs, and its removal."""

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from photoz.artifacts.artifact import load, numbers
from photoz.artifacts.claims import clear
from photoz.artifacts.file_store import TEMPORARY
from photoz.artifacts.probe import PREFIX
from photoz.artifacts.refs import (
    CLAIMS,
    CLEARING,
    FAILED,
    FINISHED,
    KINDS,
    NAME_PATTERN,
    PLAN,
    Ref,
    data_prefix,
    is_payload,
    manifest_ref,
    removed_key,
)
from photoz.artifacts.store import Store, StoredObject
from photoz.errors import BadFormat, MissingArtifact

log = logging.getLogger("photoz.artifacts")

_DEAD_WRITE = "temporary file of a write that died"
_IN_BETWEEN = ("stage/", "state/", FINISHED, FAILED, PLAN)


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
                # From the listing at hand: to list again for each name would take their number squared.
                payloads = Published(store, Ref(kind, name)).by_fingerprint(_versions(objects))
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
    folders = sorted({item.folder for item in found if item.folder})
    for (kind, name), of_name in groupby(folders, key=lambda folder: folder.split("/")[:2]):
        published = Published(store, Ref(kind, name))
        for folder in of_name:
            deleted += _clear_folder(store, folder, older_than_s, published)
    for item in found:
        if item.folder is None:
            store.delete(item.key)
            deleted.append(item)
    return deleted


def _clear_folder(store: Store, folder: str, older_than_s: float, published: "Published") -> list[Garbage]:
    fingerprint = folder.rstrip("/").rpartition("/")[2]
    newest = time.time() - older_than_s
    there: dict[str, Garbage] = {}

    def unneeded(items: Sequence[StoredObject]) -> list[str]:
        # The versions are listed anew: a job may have published since the folder was called garbage.
        payload = published.paths_now(fingerprint)
        there.update({item.key: item for item in _unneeded(folder, items, payload, newest)})
        return list(there)

    cleared = clear(store, folder, unneeded, dead_after_s=older_than_s)
    if cleared is None:
        log.info("%s: a job is at work there", folder)
    return [there[key] for key in cleared or ()]


class Published:
    """What the published versions of one kind and name need. A manifest never changes: each is read once."""

    def __init__(self, store: Store, ref: Ref) -> None:
        self._store, self._ref = store, ref
        self._known: dict[int, tuple[str, frozenset[str]] | None] = {}

    def paths_now(self, fingerprint: str) -> set[str] | None:
        """The payload keys of this fingerprint's versions, listed anew; None if it has none.

        Raises BadFormat if any version's manifest can't be read: what that one needs is not known.
        """
        found = self.by_fingerprint(numbers(self._store, self._ref).published, fingerprint)
        return found.get(fingerprint)

    def by_fingerprint(self, versions: Iterable[int], only: str | None = None) -> dict[str, set[str]]:
        """Payload keys by fingerprint, of all or `only` one, over these versions as far as they are there."""
        found: dict[str, set[str]] = {}
        for version in versions:
            if version not in self._known:
                self._known[version] = self._read(version)
            fingerprint, paths = self._known[version] or ("", ())
            if fingerprint and only in (None, fingerprint):
                found.setdefault(fingerprint, set()).update(paths)
        return found

    def _read(self, version: int) -> tuple[str, frozenset[str]] | None:
        try:
            manifest = load(self._store, self._ref.at(version)).manifest
        except MissingArtifact:
            return None  # removed since it was listed, for good
        return manifest.fingerprint, frozenset(entry.path for entry in manifest.files)


def _versions(objects: list[StoredObject]) -> list[int]:
    keys = {item.key for item in objects}
    found = (manifest_ref(key) for key in keys if key.endswith("/manifest.json"))
    return [ref.version for ref in found if ref and ref.version and removed_key(ref) not in keys]


def _by_name(store: Store, kind: str) -> dict[str, list[StoredObject]]:
    names: dict[str, list[StoredObject]] = {}
    for item in store.list(f"{kind}/"):
        names.setdefault(item.key.split("/")[1], []).append(item)
    return {name: objects for name, objects in names.items() if re.fullmatch(NAME_PATTERN, name)}


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
        elif item.key not in payload and (is_payload(relative) or relative.startswith(_IN_BETWEEN)):
            reason = "work in between, no longer needed"
        else:
            continue
        yield Garbage(item.key, item.bytes, reason, folder)
