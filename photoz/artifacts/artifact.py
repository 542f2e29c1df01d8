"""Published artifacts, as their readers see them."""

import difflib
import fnmatch
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from photoz import runtime
from photoz.artifacts.cache import Cache
from photoz.artifacts.manifest import FileEntry, Manifest, sha256_hex
from photoz.artifacts.parquet import BROKEN, bounded_batches, check_types, check_unfolded, read_bounded
from photoz.artifacts.refs import (
    KINDS,
    Ref,
    artifact_prefix,
    manifest_key,
    manifest_ref,
    marked_fingerprint,
    removed_key,
)
from photoz.artifacts.store import SMALL_BYTES, NoSuchKey, Store
from photoz.errors import BadFormat, MissingArtifact, PhotozError, TryAgain

log = logging.getLogger("photoz.artifacts")

POLL_S = 5.0


@dataclass(frozen=True)
class Artifact:
    """One published version. What it hands out has been checked against the manifest's digests."""

    store: Store
    ref: Ref
    manifest: Manifest
    manifest_sha256: str

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decided the bytes."""
        return self.manifest.settings

    @property
    def summary(self) -> dict[str, Any]:
        """Counts and metrics that people ask for first."""
        return self.manifest.summary

    @property
    def payload_sha256(self) -> str:
        """Digest of the payload without its volatile files."""
        return self.manifest.payload_sha256

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """The payload's files."""
        return self.manifest.files

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names of the payload's files that match a shell pattern, such as `train-*.tar`."""
        return sorted(entry.name for entry in self.entries if fnmatch.fnmatchcase(entry.name, pattern))

    def entry(self, name: str) -> FileEntry:
        """The file called `name`; BadFormat if the artifact lacks it."""
        found = self._by_name.get(name)
        if found is None:
            raise BadFormat(f"{self.ref}: has no file {name!r}; it was made by another program or version")
        return found

    @cached_property
    def _by_name(self) -> dict[str, FileEntry]:
        return {entry.name: entry for entry in self.entries}

    def read(self, name: str) -> bytes:
        """A small file's bytes, checked; BadFormat if it is missing, altered, or no small file."""
        size = self.entry(name).bytes
        if size > SMALL_BYTES:
            raise BadFormat(f"{self.ref}: {name} has {size} bytes; expected a small file, at most {SMALL_BYTES}")
        with self.local(name) as path:
            return path.read_bytes()

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file as an Arrow table, all columns or some; BadFormat if it is none, or has other rows."""
        with self._reading(name) as path:
            table = read_bounded(path, columns)
            self._check_rows(name, table.num_rows)
            return table

    @contextmanager
    def parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        """A Parquet file, to be read in pieces; BadFormat if it is none, or has other rows than the manifest says."""
        with self._reading(name) as path, pq.ParquetFile(path) as file:
            check_unfolded(file, path.stat().st_size)
            check_types(file.schema_arrow)
            self._check_rows(name, file.metadata.num_rows)
            yield file

    def batches(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """A Parquet file's rows in order, all columns or some, a few thousand at a time; BadFormat as `table`."""
        with self._reading(name) as path:
            rows = 0
            for batch in bounded_batches(path, columns):
                rows += batch.num_rows
                yield batch
            self._check_rows(name, rows)

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        with self.local(name) as path:
            try:
                yield path
            except BROKEN as error:
                raise BadFormat(f"{self.ref}: {name}: {str(error).splitlines()[0][:300]}; make it again") from None

    def _check_rows(self, name: str, rows: int) -> None:
        expected = self.entry(name).rows
        if expected is not None and rows != expected:
            raise BadFormat(f"{self.ref}: {name}: {rows} rows, the manifest says {expected}; make it again")

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """A local file with the entry's bytes, checked, while the block lasts: the store's own, or one in the cache.

        Raises BadFormat for a missing or altered file, TryAgain for a download that comes out wrong twice.
        """
        entry = self.entry(name)
        own = self.store.local_path(entry.path)
        if own is None:
            key = f"objects/{entry.sha256[:2]}/{entry.sha256}"
            check = partial(problem_with, entry)
            with Cache().holding(key, entry.bytes, partial(self.fetch, entry), check) as file:
                yield Path(file.name)
            return
        problem = problem_with(entry, own)
        if problem:
            raise self._unreadable(entry, problem)
        yield own

    def fetch(self, entry: FileEntry, file: BinaryIO) -> None:
        """Write the entry's bytes, checked. Raises BadFormat or TryAgain as `local` does; `file` is no good then."""
        try:
            problem = _copied(self.store, entry, file)
        except NoSuchKey:
            raise BadFormat(f"{self.ref}: {entry.path}: the file is missing from the store") from None
        if problem:
            raise self._unreadable(entry, problem)

    def _unreadable(self, entry: FileEntry, problem: str) -> PhotozError:
        # What a remote store sent wrong, twice, may come right later; a folder's file stays as it is.
        if self.store.local_path(entry.path) is not None:
            return BadFormat(f"{self.ref}: {entry.path}: {problem}; restore it from a copy, or make a new version")
        return TryAgain(
            f"{self.ref}: {entry.path}: {problem}, twice; `photoz-job artifacts verify {self.ref}` tells more"
        )

    def input(self, kind: str) -> "Artifact":
        """The input of that kind, at the version and digest that were read; MissingArtifact if it is gone."""
        for made_from in self.manifest.inputs:
            ref = Ref.parse(made_from.ref)
            if ref.kind == kind:
                found = load(self.store, ref)
                if found.payload_sha256 != made_from.payload_sha256:
                    raise BadFormat(f"{self.ref}: was made from {ref} with another payload than {ref} has now")
                return found
        raise BadFormat(f"{self.ref}: its manifest names no input of kind {kind}")


def check(store: Store, entry: FileEntry) -> str | None:
    """What is wrong with the entry's bytes in the store, looked at twice where it is remote; None if nothing is."""
    try:
        return _copied(store, entry, None)
    except NoSuchKey:
        return "missing"


def _copied(store: Store, entry: FileEntry, file: BinaryIO | None) -> str | None:
    problem = _problem(store, entry, file)
    if problem and store.local_path(entry.path) is None:
        log.warning("%s: %s: %s; fetched again", store.url, entry.path, problem)
        problem = _problem(store, entry, file)
    return problem


def _problem(store: Store, entry: FileEntry, file: BinaryIO | None) -> str | None:
    digest, size = hashlib.sha256(), 0
    if file:
        file.seek(0)
    for part in store.stream(entry.path):
        runtime.check_stop()
        size += len(part)
        if size > entry.bytes:
            return f"more bytes than the {entry.bytes} that the manifest says"
        digest.update(part)
        if file:
            file.write(part)
    if size != entry.bytes:
        return f"{size} bytes, the manifest says {entry.bytes}"
    return None if digest.hexdigest() == entry.sha256 else "its bytes are not those in the manifest (sha256 differs)"


def problem_with(entry: FileEntry, path: Path) -> str | None:
    """What is wrong with `path` as a copy of the entry; None if nothing is."""
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            return f"has {size} bytes, the manifest says {entry.bytes}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "the file is missing from the store"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    return None if digest == entry.sha256 else f"sha256 {digest[:12]}…, the manifest says {entry.sha256[:12]}…"


@dataclass(frozen=True)
class Numbers:
    """The version numbers of a kind and name in one listing, ascending; fingerprints of those published, if marked."""

    published: list[int]
    removed: list[int]
    fingerprints: dict[int, str]

    @property
    def following(self) -> int:
        """The next number to hand out."""
        return max([0, *self.published, *self.removed]) + 1


def numbers(store: Store, ref: Ref) -> Numbers:
    """The versions that there are.

    A manifest under a removed number is that of a writer which came too late, and will be taken back.
    """
    published: set[int] = set()
    removed: set[int] = set()
    fingerprints: dict[int, str] = {}
    for item in store.list(artifact_prefix(ref) + "v"):
        if marked := marked_fingerprint(item.key):
            fingerprints[marked[0]] = marked[1]
        found = manifest_ref(item.key)
        if found and found.version:
            (removed if item.key == removed_key(found) else published).add(found.version)
    return Numbers(sorted(published - removed), sorted(removed), fingerprints)


def versions(store: Store, ref: Ref) -> tuple[list[int], list[int]]:
    """(published, removed) version numbers of a kind and name, ascending."""
    found = numbers(store, ref)
    return found.published, found.removed


def is_removed(store: Store, ref: Ref) -> bool:
    """Whether that version has been removed."""
    return any(item.key == removed_key(ref) for item in store.list(removed_key(ref)))


def load(store: Store, ref: Ref, wait_s: float = 0) -> Artifact:
    """Load `ref` (the latest version where it names none), waiting up to `wait_s` seconds for it to appear.

    Raises MissingArtifact if it does not exist in time, BadFormat if its manifest can't be read.
    """
    deadline = time.monotonic() + wait_s
    said = False
    while True:
        found = _load_now(store, ref)
        if found:
            return found
        left = deadline - time.monotonic()
        if left <= 0:
            raise MissingArtifact(_missing(store, ref, wait_s))
        if not said:
            log.info("waiting up to %.0f s for %s in %s", wait_s, ref, store.url)
            said = True
        runtime.check_stop()
        time.sleep(min(POLL_S, left))


def _load_now(store: Store, ref: Ref) -> Artifact | None:
    if ref.version is not None:
        return _load_version(store, ref)
    gone: set[int] = set()  # removed after they were listed
    while left := set(versions(store, ref)[0]) - gone:
        found = _load_version(store, ref.at(max(left)))
        if found:
            return found
        gone.add(max(left))
    return None


def _load_version(store: Store, ref: Ref) -> Artifact | None:
    try:
        data = store.get(manifest_key(ref))
    except NoSuchKey:
        return None
    manifest = Manifest.decode(data, f"{store.url}: {ref}")
    if (manifest.kind, manifest.name, manifest.version) != (ref.kind, ref.name, ref.version):
        raise BadFormat(f"{store.url}: {ref}: its manifest is that of another artifact; it was copied by hand")
    return Artifact(store, ref, manifest, sha256_hex(data))


def _missing(store: Store, ref: Ref, wait_s: float) -> str:
    waited = f" after waiting {wait_s:.0f} s" if wait_s else ""
    where = f"{ref}: not in store {store.url}{waited}"
    if no_store := _no_folder(store):
        return f"{ref}: {no_store}{waited}; correct --store, or make the {ref.kind} there first"
    published, removed = versions(store, ref)
    if published or removed:
        said = [f"there {_are([f'v{version}' for version in published])}"] if published else []
        verb = "was" if len(removed) == 1 else "were"
        said += [f"{_few([f'v{version}' for version in removed])} {verb} removed"] if removed else []
        return f"{where} ({'; '.join(said)}); name a version that is there, or make a new one"
    others = sorted({found.name for found in refs(store, ref.kind)})
    if not others:
        there = f"there is no {ref.kind} artifact yet"
    elif close := difflib.get_close_matches(ref.name, others, 1):
        there = f"did you mean {ref.kind}/{close[0]}? there {_are([f'{ref.kind}/{name}' for name in others])}"
    else:
        there = f"there {_are([f'{ref.kind}/{name}' for name in others])}"
    return f"{where} ({there}); make it first, wait with --wait, or check the name"


def _are(names: Sequence[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {_few(names)}"


def _few(names: Sequence[str]) -> str:
    """All of the names, or the first and last of many."""
    shown = [*names[:3], "…", *names[-3:]] if len(names) > 8 else names
    return ", ".join(shown)


def check_there(store: Store) -> None:
    """Raise MissingArtifact if the store is a folder that does not exist."""
    if no_store := _no_folder(store):
        raise MissingArtifact(f"{no_store}; correct --store, or run a job that writes there first")


def _no_folder(store: Store) -> str | None:
    folder = store.local_path("")
    return f"there is no store {store.url}" if folder is not None and not folder.is_dir() else None


def refs(store: Store, kind: str | None = None) -> Iterator[Ref]:
    """Every published version in the store, of one kind or all, sorted."""
    # Kind by kind: the store's folder may hold a lot that is none of ours.
    listed = (item.key for one in ([kind] if kind else KINDS) for item in store.list(f"{one}/"))
    keys = {key for key in listed if key.endswith(("/manifest.json", "/removed.json"))}
    found = (manifest_ref(key) for key in keys if key.endswith("/manifest.json"))
    there = [ref for ref in found if ref and removed_key(ref) not in keys]
    yield from sorted(there, key=lambda ref: (ref.kind, ref.name, ref.version or 0))
