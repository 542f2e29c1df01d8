"""The object store as a handful of verbs; artifacts need nothing else of it."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, unquote_to_bytes

from photoz.errors import BadFormat, BadInput
from photoz.redaction import redacted

SMALL_BYTES = 256 * 2**20  # a manifest of a million files; more than that is not read into memory at once

_EXPECTED = "expected s3://bucket/prefix, file:///folder or a folder's path"
_SCHEME = re.compile(r"[^/]*://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


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
    """Open `s3://bucket/prefix`, `file:///dir` or a plain path, in which `~` is the user's home.

    Raises BadInput for any other scheme, for what could mean two places, or where the place can't be used.
    """
    named = f"store {redacted(url)!r}"
    if not url or _CONTROL.search(url):
        raise BadInput(f"{named}: {'holds a control character' if url else 'names no place'}; {_EXPECTED}")
    scheme = url.partition(":")[0].lower()
    # Imported here: only the backend in use should cost its start-up time (boto3: 0.3 s).
    if scheme == "s3" and ":" in url:
        from photoz.artifacts.s3_store import S3Store

        if not url[2:].startswith("://"):
            raise BadInput(f"{named}: {_EXPECTED}")
        bucket, _, prefix = url[5:].partition("/")
        return S3Store.open(bucket, prefix)
    from photoz.artifacts.file_store import FileStore

    if scheme == "file" and ":" in url:
        return FileStore(_path_in(url, named))
    if _SCHEME.match(url):
        raise BadInput(f"{named}: {_EXPECTED}")
    if not url.startswith("~"):
        return FileStore(Path(url))
    try:
        return FileStore(Path(url).expanduser())
    except RuntimeError:
        raise BadInput(f"{named}: there is no such user; for a folder of that name write ./{url}") from None


def _path_in(url: str, named: str) -> Path:
    """The folder in a file URL, taken byte by byte: two URLs of different folders never give one."""
    rest = url[len("file:") :]
    host, slash, path = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest)
    path = slash + path
    if host.lower() not in ("", "localhost"):
        raise BadInput(f"{named}: a file URL names no host; expected file:///folder")
    if not path.startswith("/"):
        raise BadInput(f"{named}: a file URL holds the whole path; expected file:///folder, or a path without file:")
    if "#" in path or "?" in path:
        raise BadInput(f"{named}: a file URL holds no '#' or '?'; write %23 or %3F for it, or the path without file://")
    if _BROKEN_PERCENT.search(path) or _CONTROL.search(unquote(path)):
        raise BadInput(f"{named}: '%' is followed by two hex digits of a byte; write %25 for a '%' in a folder's name")
    return Path(os.fsdecode(unquote_to_bytes(os.fsencode(path))))


def check_small(data: bytes, limit: int, source: str) -> bytes:
    """Return `data`; raise BadFormat if there are more bytes than `limit`."""
    if len(data) > limit:
        raise BadFormat(f"{source}: more than {limit} bytes; expected a small object, remove it or restore a copy")
    return data
