"""A model of how artifacts are written, published and removed, small enough to look at every order of steps.

Processes take turns, one request to the store at a time, and may die at any moment. The store is a dictionary with
a conditional create and listings that show what was written before them. `explore` visits every reachable state and
checks that in none of them a promise is broken. `Rules` can be bent one at a time, to see that the check finds it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

Key = tuple[str, ...]
Objects = frozenset[tuple[Key, object]]


@dataclass(frozen=True)
class Rules:
    """The protocol as it is; each field set to False is a way to get it wrong."""

    files_are_created_once: bool = True
    claim_comes_before_looking_for_marks: bool = True
    mark_comes_before_looking_for_claims: bool = True
    a_manifest_under_a_removed_number_is_none: bool = True
    twin_is_looked_for_in_the_listing_that_gives_the_number: bool = True
    files_are_checked_before_the_commit: bool = True


@dataclass(frozen=True)
class Process:
    """A job ("write": makes `bytes_` for fingerprint `of`), a removal ("rm" of a version of `of`), or a "sweep"."""

    kind: str
    of: str
    bytes_: str = ""
    at: str = "begin"
    seen: tuple[object, ...] = ()
    name: int = 0


@dataclass(frozen=True)
class State:
    """The store, the processes, and every manifest that ever was."""

    objects: Objects
    processes: tuple[Process, ...]
    ever: Objects = field(default_factory=frozenset)

    def get(self, key: Key) -> object:
        return dict(self.objects).get(key)

    def listed(self, *start: str) -> dict[Key, object]:
        return {key: value for key, value in self.objects if key[: len(start)] == start}

    def put(self, key: Key, value: object) -> "State":
        state = replace(self, objects=frozenset({*((k, v) for k, v in self.objects if k != key), (key, value)}))
        seen = key[0] == "manifest" and not state.removed(key[1])
        return replace(state, ever=state.ever | {(key, value)}) if seen else state

    def removed(self, version: str) -> bool:
        return (("removed", version), "") in self.objects

    def published(self) -> dict[Key, object]:
        return {key: value for key, value in self.listed("manifest").items() if not self.removed(key[1])}

    def delete(self, key: Key) -> "State":
        return replace(self, objects=frozenset((k, v) for k, v in self.objects if k != key))

    def move(self, process: Process, at: str, *seen: object) -> "State":
        moved = replace(process, at=at, seen=seen or process.seen)
        return replace(self, processes=tuple(moved if p.name == moved.name else p for p in self.processes))


def _manifests(state: State) -> tuple[tuple[int, str], ...]:
    """(version, fingerprint) of what is published, and (version, "") of removed numbers."""
    published = [(int(key[1]), str(value[0])) for key, value in state.published().items()]  # type: ignore[index]
    return tuple(sorted(published + [(int(key[1]), "") for key in state.listed("removed")]))


def _write(state: State, me: Process, rules: Rules) -> State:
    claim, receipt = ("claim", me.of, str(me.name)), ("receipt", me.of)
    match me.at:
        case "begin":
            if any(fingerprint == me.of for _, fingerprint in _manifests(state)):
                return state.move(me, "exists")
            return state.move(me, "claim" if rules.claim_comes_before_looking_for_marks else "look")
        case "claim":
            after = "look" if rules.claim_comes_before_looking_for_marks else "resume"
            return state.put(claim, "").move(me, after)
        case "look":
            if state.listed("mark", me.of):
                return state.delete(claim).move(me, "try again")
            return state.move(me, "resume" if rules.claim_comes_before_looking_for_marks else "claim")
        case "resume":
            found = state.get(receipt)
            return state.move(me, "check", found) if found else state.move(me, "file")
        case "file":
            own = ("file", me.of)
            if state.get(own) in (None, me.bytes_) or not rules.files_are_created_once:
                return state.put(own, me.bytes_).move(me, "receipt", (own, me.bytes_))
            again = ("file", me.of, me.bytes_)
            return state.put(again, me.bytes_).move(me, "receipt", (again, me.bytes_))
        case "receipt":
            found = state.get(receipt)
            return state.move(me, "check", found) if found else state.put(receipt, me.seen[0]).move(me, "check")
        case "check":
            key, value = me.seen[0]  # type: ignore[misc]
            if rules.files_are_checked_before_the_commit and state.get(key) != value:
                return state.move(me, "gone")
            return state.move(me, "number")
        case "number":
            there = _manifests(state)
            if any(fingerprint == me.of for _, fingerprint in there):
                return state.delete(claim).move(me, "exists")
            return state.move(me, "publish", me.seen[0], max([0, *(version for version, _ in there)]) + 1)
        case "publish":
            file, version = me.seen
            if not rules.twin_is_looked_for_in_the_listing_that_gives_the_number:
                version = max([0, *(v for v, _ in _manifests(state))]) + 1
            key = ("manifest", str(version))
            if state.get(key):
                return state.move(me, "number", file)
            confirm = rules.a_manifest_under_a_removed_number_is_none
            return state.put(key, (me.of, file)).move(me, "confirm" if confirm else "release")
        case "confirm":
            # Whoever removes takes the number before deleting its manifest: a create that slips in between is late.
            file, version = me.seen
            if state.removed(str(version)):
                return state.delete(("manifest", str(version))).move(me, "number", file)
            return state.move(me, "release")
        case "release":
            return state.delete(claim).move(me, "created")
    raise AssertionError(me.at)


def _remove(state: State, me: Process, rules: Rules) -> State:
    mark = ("mark", me.of, str(me.name))
    match me.at:
        case "begin":
            versions = [version for version, fingerprint in _manifests(state) if fingerprint == me.of]
            return state.move(me, "take number", versions[-1]) if versions else state.move(me, "nothing there")
        case "take number":
            return state.put(("removed", str(me.seen[0])), "").move(me, "unpublish")
        case "unpublish":
            unpublished = state.delete(("manifest", str(me.seen[0])))
            return unpublished.move(me, "mark" if rules.mark_comes_before_looking_for_claims else "look")
        case "mark":
            after = "look" if rules.mark_comes_before_looking_for_claims else "look again"
            return state.put(mark, "").move(me, after)
        case "look":
            if state.listed("claim", me.of):
                return state.move(me, "unmark")
            return state.move(me, "look again" if rules.mark_comes_before_looking_for_claims else "mark")
        case "look again":
            doomed = sorted({*state.listed("file", me.of), *state.listed("receipt", me.of)})
            shared = any(fingerprint == me.of for _, fingerprint in _manifests(state))
            return state.move(me, "unmark") if shared else state.move(me, "delete", *doomed, "end")
        case "delete":
            if me.seen[0] == "end":
                return state.move(me, "unmark")
            return state.delete(me.seen[0]).move(me, "delete", *me.seen[1:])  # type: ignore[arg-type]
        case "unmark":
            return state.delete(mark).move(me, "removed")
    raise AssertionError(me.at)


def _sweep(state: State, me: Process, _rules: Rules) -> State:
    """What `gc` does for the mark of a removal that died, a day later."""
    dead = {str(process.name) for process in state.processes if process.at == "dead"}
    for key in state.listed("mark"):
        state = state.delete(key) if key[2] in dead else state
    return state.move(me, "swept")


STEPS: dict[str, Callable[[State, Process, Rules], State]] = {"write": _write, "rm": _remove, "sweep": _sweep}
ENDS = {"exists", "created", "try again", "gone", "nothing there", "removed", "swept", "dead"}


def _next(state: State, rules: Rules) -> Iterator[State]:
    for process in state.processes:
        if process.at not in ENDS:
            yield state.move(process, "dead")
            yield STEPS[process.kind](state, process, rules)


def broken_promise(state: State) -> str | None:
    """What is wrong in this state, if anything."""
    published = [(key[1], value) for key, value in state.published().items()]
    ever = sorted(int(key[1]) for key, _ in state.ever)
    if len(set(ever)) != len(ever):
        return "a version number came to mean two things"
    if ever != list(range(1, len(ever) + 1)):
        return "a version number was left out"
    fingerprints = [value[0] for _, value in published]  # type: ignore[index]
    if len(set(fingerprints)) != len(fingerprints):
        return "two versions of the same fingerprint"
    for version, (_, (key, value)) in published:  # type: ignore[misc]
        if state.get(key) != value:
            return f"version {version} lost its bytes"
    ends = [process.at for process in state.processes]
    if ends.count("created") > len(ever):
        return "a job says created, and nothing was"
    undisturbed = all(process.kind == "write" and process.at in ENDS - {"dead"} for process in state.processes)
    if undisturbed and {process.of for process in state.processes} != set(fingerprints):
        return "every job ended well, and one is not published"
    return None


def explore(processes: list[Process], rules: Rules) -> tuple[int, str | None]:
    """(number of reachable states, the first broken promise found) over every order of steps and deaths."""
    numbered = tuple(replace(process, name=number) for number, process in enumerate(processes))
    start = State(frozenset(), numbered)
    seen, waiting = {start}, [start]
    while waiting:
        state = waiting.pop()
        wrong = broken_promise(state)
        if wrong:
            return len(seen), wrong
        for following in _next(state, rules):
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return len(seen), None
