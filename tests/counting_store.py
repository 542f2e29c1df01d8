"""A store that counts its requests, as S3 would: a listing is one for each 1000 keys."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from photoz.artifacts import Store
from photoz.artifacts.store import SMALL_BYTES, StoredObject

KEYS_A_PAGE = 1000


class Counting:
    """`requests` by verb, and as `listed` the keys that listings went through: on a file system, a `stat` each."""

    def __init__(self, inner: Store) -> None:
        self.url = inner.url
        self.requests: Counter[str] = Counter()
        self.listed = 0
        self._inner = inner

    def get(self, key: str, limit: int = SMALL_BYTES) -> bytes:
        self.requests["get"] += 1
        return self._inner.get(key, limit)

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        self.requests["get"] += 1
        return self._inner.stream(key, start, stop)

    def put(self, key: str, source: bytes | Path) -> None:
        self.requests["put"] += 1
        self._inner.put(key, source)

    def create(self, key: str, source: bytes | Path) -> bool:
        self.requests["put"] += 1
        return self._inner.create(key, source)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        found = list(self._inner.list(prefix))
        self.requests["list"] += max(1, -(-len(found) // KEYS_A_PAGE))
        self.listed += len(found)
        return iter(found)

    def delete(self, key: str) -> None:
        self.requests["delete"] += 1
        self._inner.delete(key)

    def local_path(self, key: str) -> Path | None:
        return self._inner.local_path(key)
