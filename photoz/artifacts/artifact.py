"""Published artifacts, as their readers see them."""

import fnmatch
import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from photoz import runtime
from photoz.artifacts.manifest import FileEntry, Manifest, sha256_hex
from photoz.artifacts.refs import Ref, artifact_prefix, manifest_key, manifest_ref
from photoz.artifacts.store import NoSuchKey, Store
from photoz.errors import BadFormat, BadInput, MissingArtifact, TryAgain

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
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise BadFormat(f"{self.ref}: has no file {name!r}; it was made by another program or version")

    def read(self, name: str) -> bytes:
        """A small file's bytes, checked; BadFormat if it is missing or altered."""
        return self.local(name).read_bytes()

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file as an Arrow table, all columns or some; BadFormat if it is no Parquet file."""
        try:
            return pq.read_table(self.local(name), columns=list(columns) if columns is not None else None)
        except pa.ArrowInvalid as error:
            raise BadFormat(f"{self.ref}: {name}: {str(error).splitlines()[0]}") from None

    def local(self, name: str) -> Path:
        """A local file with the entry's bytes, checked: the store's own file, or a copy in the cache.

        Raises BadFormat for a missing or altered file, TryAgain for a download that comes out wrong twice.
        """
        entry = self.entry(name)
        own = self.store.local_path(entry.path)
        if own is not None:
            problem = problem_with(entry, own)
            if problem:
                raise BadFormat(f"{self.ref}: {entry.path}: {problem}; restore it from a copy, or make a new version")
            return own
        return self._cached(entry)

    def _cached(self, entry: FileEntry) -> Path:
        cached = runtime.cache_folder() / "objects" / entry.sha256[:2] / entry.sha256
        if cached.is_file() and problem_with(entry, cached) is None:
            return cached
        cached.parent.mkdir(parents=True, exist_ok=True)
        problem: str | None = None
        for _ in range(2):
            arriving = cached.with_name(f".tmp-{uuid.uuid4().hex}")
            try:
                problem = copy(self.store, entry, arriving)
                if problem is None:
                    arriving.replace(cached)
                    return cached
            except NoSuchKey:
                raise BadFormat(f"{self.ref}: {entry.path}: the file is missing from the store") from None
            finally:
                arriving.unlink(missing_ok=True)
        raise TryAgain(
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


def copy(store: Store, entry: FileEntry, path: Path) -> str | None:
    """Write the entry's bytes to `path` and return what is wrong with them; None if nothing is. NoSuchKey if gone."""
    with path.open("wb") as file:
        return _problem(entry, store, file.write)


def check(store: Store, entry: FileEntry) -> str | None:
    """What is wrong with the entry's bytes in the store; None if nothing is."""
    try:
        return _problem(entry, store, lambda part: None)
    except NoSuchKey:
        return "missing"


def _problem(entry: FileEntry, store: Store, take: Callable[[memoryview], object]) -> str | None:
    digest, size = hashlib.sha256(), 0
    for part in store.stream(entry.path):
        size += len(part)
        if size > entry.bytes:
            return f"more bytes than the {entry.bytes} that the manifest says"
        digest.update(part)
        take(part)
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


def versions(store: Store, ref: Ref) -> tuple[list[int], list[int]]:
    """(published, removed) version numbers of a kind and name, ascending."""
    published: list[int] = []
    removed: list[int] = []
    for item in store.list(artifact_prefix(ref) + "v"):
        found = manifest_ref(item.key)
        if found and found.version:
            (removed if item.key.endswith("removed.json") else published).append(found.version)
    return sorted(set(published)), sorted(set(removed))


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
    if ref.version is None:
        published, _ = versions(store, ref)
        if not published:
            return None
        ref = ref.at(published[-1])
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
    others = sorted({f"{found.kind}/{found.name}" for found in refs(store, ref.kind)})
    there = f"there are {', '.join(others[:5])}" if others else f"there is no {ref.kind} artifact yet"
    return f"{ref}: not in store {store.url}{waited} ({there}); make it first, wait with --wait, or check the name"


def refs(store: Store, kind: str | None = None) -> Iterator[Ref]:
    """Every published version in the store, of one kind or all, sorted."""
    found = [
        manifest_ref(item.key) for item in store.list(f"{kind}/" if kind else "") if item.key.endswith("/manifest.json")
    ]
    yield from sorted((ref for ref in found if ref), key=lambda ref: (ref.kind, ref.name, ref.version or 0))


def parse_duration(text: str) -> float:
    """Seconds in `90`, `90s`, `15m`, `2h` or `1d`; BadInput otherwise."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise BadInput(f"duration {text!r}: expected a number and a unit, such as 90s, 15m or 2h")
    return seconds
