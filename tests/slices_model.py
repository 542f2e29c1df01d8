"""How slices find out that all are done: the real code's requests in every order, with a death at any of them.

The store is a set of keys. A process is a program and the answers it has had so far: to go on, it runs anew, gets those
answers again, and does one request more. `explore` visits every reachable state. Where all processes have ended, it
looks whether a slice that is started now would still find the way to the commit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from photoz.artifacts.finished import Finished
from photoz.artifacts.refs import CLAIMS, CLEARING, FINISHED, slice_receipt_name
from photoz.artifacts.store import SMALL_BYTES, NoSuchKey, StoredObject

COUNT, FAN_OUT = 4, 2  # two groups of two slices
MANIFEST = "manifest"
DEAD = "dead"
Objects = frozenset[str]


@dataclass(frozen=True)
class Rules:
    """The protocol as it is; each field set to False is a way to get it wrong."""

    a_mark_comes_after_its_receipt: bool = True
    receipts_are_looked_for_where_marks_are_missing: bool = True
    marks_are_deleted_before_receipts: bool = True


class _OneMore(BaseException):
    """The program has come to the request after the new one."""


class Replayed:
    """A store that repeats the answers a process has had, then does one request, and ends the program at the next."""

    url = "model"

    def __init__(self, objects: Objects, answers: tuple[Any, ...]) -> None:
        self.objects, self.answers = set(objects), answers
        self._asked = 0

    def _ask(self, do: Callable[[], Any]) -> Any:
        self._asked += 1
        if self._asked <= len(self.answers):
            return self.answers[self._asked - 1]
        if self._stepped:
            raise _OneMore
        self._stepped = True
        self.answers += (do(),)
        return self.answers[-1]

    _stepped = False

    def get(self, key: str, limit: int = SMALL_BYTES) -> bytes:
        if not self._ask(lambda: key in self.objects):
            raise NoSuchKey(key)
        return b"{}"

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        raise AssertionError(key)

    def put(self, key: str, source: bytes | Path) -> None:
        self._ask(lambda: self.objects.add(key))

    def create(self, key: str, source: bytes | Path) -> bool:
        return bool(self._ask(lambda: key not in self.objects and not self.objects.add(key)))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        found = self._ask(lambda: tuple(sorted(key for key in self.objects if key.startswith(prefix))))
        return iter([StoredObject(key, 2, 0.0) for key in found])

    def delete(self, key: str) -> None:
        self._ask(lambda: self.objects.discard(key))

    def local_path(self, key: str) -> Path | None:
        return None


@dataclass(frozen=True)
class Process:
    """A slice's `index`, or -1 for a removal which an error ends after `most` deletions."""

    index: int
    most: int = 100
    name: int = 0
    answers: tuple[Any, ...] = ()
    end: str = ""


def receipt(index: int) -> str:
    return slice_receipt_name(index, COUNT)


def run_slice(store: Replayed, me: Process, rules: Rules) -> str:
    """What Draft does from its beginning to the commit, as far as it has to do with other slices."""
    claim = f"{CLAIMS}{me.name}"
    store.put(claim, b"")
    if any(store.list(CLEARING)):
        store.delete(claim)
        return "try again"
    finished = Finished(store, "", COUNT, FAN_OUT)
    if not rules.receipts_are_looked_for_where_marks_are_missing:
        object.__setattr__(finished, "_has_receipt", lambda index: False)
    if rules.a_mark_comes_after_its_receipt:
        store.put(receipt(me.index), b"")
        all_done = finished.add(me.index)
    else:
        all_done = finished.add(me.index)
        store.put(receipt(me.index), b"")
    end = "partial"
    if all_done:
        there = {item.key for item in store.list("parts/0")}
        missing = any(receipt(index) not in there for index in range(COUNT))
        end = "gone" if missing else "created" if store.create(MANIFEST, b"") else "exists"
    store.delete(claim)
    return end


def run_removal(store: Replayed, me: Process, rules: Rules) -> str:
    """What claims.clear does to an unfinished draft; an error of the store ends it after `most` deletions."""
    mark = f"{CLEARING}{me.name}"
    store.put(mark, b"")
    there = [item.key for item in store.list("")]
    if MANIFEST not in there and not any(key.startswith(CLAIMS) for key in there):
        marks_first = rules.marks_are_deleted_before_receipts
        doomed = sorted(there, key=lambda key: key.startswith(FINISHED) != marks_first)
        for key in [key for key in doomed if not key.startswith(CLEARING)][: me.most]:
            store.delete(key)
    store.delete(mark)
    return "removed"


State = tuple[Objects, tuple[Process, ...]]


def _step(state: State, me: Process, rules: Rules) -> State:
    objects, processes = state
    store = Replayed(objects, me.answers)
    try:
        end = (run_removal if me.index < 0 else run_slice)(store, me, rules)
    except _OneMore:
        end = ""
    moved = replace(me, answers=store.answers if not end else (), end=end)
    return frozenset(store.objects), tuple(moved if other.name == me.name else other for other in processes)


def _alone(objects: Objects, index: int, rules: Rules) -> tuple[Objects, str]:
    """The store after one more run of a slice with nobody beside it, and how that ended."""
    state: State = objects, (Process(index, name=99),)
    while not state[1][0].end:
        state = _step(state, state[1][0], rules)
    return state[0], state[1][0].end


def _broken_promise(state: State, rules: Rules) -> str | None:
    objects, processes = state
    if any(process.end == "gone" for process in processes):
        return "a slice took all for done, and a receipt was missing"
    if not all(process.end for process in processes):
        return None
    all_receipts = all(receipt(index) in objects for index in range(COUNT))
    if all_receipts and MANIFEST not in objects and all(process.end != DEAD for process in processes):
        return "all slices are done, and none has committed"
    # What died is started again; marks and claims of the dead are gone by then, by the clock or by gc.
    objects = frozenset(key for key in objects if not key.startswith((CLAIMS, CLEARING)))
    missing = [index for index in range(COUNT) if receipt(index) not in objects]
    if MANIFEST in objects:
        return None
    for first in range(COUNT) if not missing else missing[:1]:
        after = objects
        for index in [first, *missing[1:]]:
            after, end = _alone(after, index, rules)
        if end != "created":
            return f"with every slice done, another run of slice {first} ended with {end!r}"
    return None


def explore(before: Objects, processes: Sequence[Process], rules: Rules) -> tuple[int, str | None]:
    """(number of reachable states, the first broken promise found) over every order of requests and deaths."""
    start: State = before, tuple(replace(process, name=number) for number, process in enumerate(processes))
    seen, waiting = {start}, [start]
    while waiting:
        state = waiting.pop()
        if wrong := _broken_promise(state, rules):
            return len(seen), wrong
        for process in state[1]:
            if not process.end:
                dead = tuple(replace(p, end=DEAD, answers=()) if p is process else p for p in state[1])
                for following in (_step(state, process, rules), (state[0], dead)):
                    if following not in seen:
                        seen.add(following)
                        waiting.append(following)
    return len(seen), None


def done(*indices: int) -> Objects:
    """A store where these slices have run, one after the other."""
    objects: Objects = frozenset()
    for index in indices:
        objects, _ = _alone(objects, index, Rules())
    return objects


def receipts(*indices: int) -> Objects:
    """A store where a program without marks has done these slices."""
    return frozenset(map(receipt, indices))
