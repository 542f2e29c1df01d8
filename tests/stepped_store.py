"""A store whose every request waits for its turn, so that a test decides in which order the real code's steps come."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from photoz.artifacts import Store
from photoz.artifacts.store import SMALL_BYTES, StoredObject

Result = TypeVar("Result")


class Killed(BaseException):
    """The process died here: nothing after it is done, not even tidying up."""


class Stepped:
    """One process: `work` on the store in a thread that stands still before each request until `step` is called."""

    def __init__(self, inner: Store, work: Callable[[Store], object]) -> None:
        self.url = inner.url
        self.result: object = None
        self.error: Exception | None = None
        self.ended = self.killed = False
        self._inner = inner
        self._turn, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        self._stands.acquire()

    def step(self) -> None:
        """Let it do its next request, and what it computes until the one after."""
        if not self.ended:
            self._turn.release()
            self._stands.acquire()

    def kill(self) -> None:
        """Let it die before its next request."""
        self.killed = True
        while not self.ended:
            self.step()

    def finish(self) -> None:
        """Let it do everything that is left."""
        while not self.ended:
            self.step()

    def _run(self, work: Callable[[Store], object]) -> None:
        self._await_turn()
        try:
            if not self.killed:
                self.result = work(self)
        except Killed:
            pass
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self.ended = True
        self._stands.release()

    def _await_turn(self) -> None:
        self._stands.release()
        self._turn.acquire()

    def _request(self, do: Callable[[], Result]) -> Result:
        self._await_turn()
        if self.killed:
            raise Killed
        return do()

    def get(self, key: str, limit: int = SMALL_BYTES) -> bytes:
        return self._request(lambda: self._inner.get(key, limit))

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        yield from self._request(lambda: [memoryview(bytes(part)) for part in self._inner.stream(key, start, stop)])

    def put(self, key: str, source: bytes | Path) -> None:
        self._request(lambda: self._inner.put(key, source))

    def create(self, key: str, source: bytes | Path) -> bool:
        return self._request(lambda: self._inner.create(key, source))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        yield from self._request(lambda: list(self._inner.list(prefix)))

    def delete(self, key: str) -> None:
        self._request(lambda: self._inner.delete(key))

    def local_path(self, key: str) -> Path | None:
        return self._inner.local_path(key)
