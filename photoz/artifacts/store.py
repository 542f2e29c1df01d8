"""The object store as a handful of verbs; artifacts need nothing else of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from photoz.errors import BadFormat, BadInput
from photoz.redaction import redacted

SMALL_BYTES = 256 * 2**20  # a manifest of a million files; more than that is not read into memory at once


@dataclass(frozen=True)
class StoredObject:
    """An object in a listing: `modified` is seconds since 1970 by the store's clock."""

    key: str
    bytes: int
    modified: float


class NoSuchKey(Exception):
    """No object under this key. Callers turn it into an error that says what is missing."""


class Store(Protocol):
    """Objects under keys such as `shards/mgs/v1/manifest.json`.

    Every write is whole or absent: no reader ever sees part of an object. All verbs raise TryAgain for a
    transient failure that outlasted its retries, and BadInput where access or settings are at fault.
    """

    url: str

    def get(self, key: str, limit: int = SMALL_BYTES) -> bytes:
        """A small object's bytes; NoSuchKey if there is none, BadFormat if it has more than `limit` bytes."""

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The object's bytes from `start` up to `stop` (default: its end), in parts.

        A part is only good until the next one is asked for: they share one buffer. NoSuchKey if there is no object.
        """

    def put(self, key: str, source: bytes | Path) -> None:
        """Write an object, replacing one that is there."""

    def create(self, key: str, source: bytes | Path) -> bool:
        """Write an object if there is none under the key: True if this call wrote it. The only lock there is."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose key starts with `prefix`, in no order that can be relied on."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""

    def local_path(self, key: str) -> Path | None:
        """The object as a file of this machine, where the store is a folder; else None."""


def open_store(url: str) -> Store:
    """Open `s3://bucket/prefix`, `file:///dir` or a plain path.

    Raises BadInput for any other scheme, or where the place can't be used.
    """
    # Imported here: only the backend in use should cost its start-up time (boto3: 0.3 s).
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from photoz.artifacts.s3_store import S3Store

        return S3Store.open(parts.netloc, parts.path)
    from photoz.artifacts.file_store import FileStore

    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise BadInput(f"store {redacted(url)!r}: a file URL names no host; expected file:///folder")
        return FileStore(Path(unquote(parts.path)))
    if "://" in url or not url:
        raise BadInput(f"store {redacted(url)!r}: expected s3://bucket/prefix, file:///folder or a folder's path")
    return FileStore(Path(url))


def check_small(data: bytes, limit: int, source: str) -> bytes:
    """Return `data`; raise BadFormat if there are more bytes than `limit`."""
    if len(data) > limit:
        raise BadFormat(f"{source}: more than {limit} bytes; expected a small object, remove it or restore a copy")
    return data
