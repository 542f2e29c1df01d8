"""Whether a store can be trusted with commits: does it refuse to create an object that is there?"""

import json
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from photoz import runtime
from photoz.artifacts.manifest import sha256_hex
from photoz.artifacts.store import NoSuchKey, Store
from photoz.errors import BadInput, PhotozError

PREFIX = "probe/"  # in the store: what a probe that was killed leaves behind is below it
VALID_S = 7 * 86400.0
KNOWN_TO_WORK = "AWS S3 (as documented), SeaweedFS and Ceph's RADOS Gateway"
_RACERS = 8

_passed: set[str] = set()
_probing = threading.Lock()


def ensure_conditional_create(store: Store) -> None:
    """Probe a store before the first write to it, once a process and once in seven days on this machine.

    Raises BadInput as `check_conditional_create` does; a failure is never remembered.
    """
    place = getattr(store, "endpoint", "") + " " + store.url
    with _probing:
        if place in _passed:
            return
        record = runtime.cache_folder() / "probes" / f"{sha256_hex(os.fsencode(place))[:32]}.json"
        if not _valid(record, place):
            check_conditional_create(store)
            _remember(record, place)
        _passed.add(place)


def check_conditional_create(store: Store) -> None:
    """Create one small object twice, then another from eight threads at once: one create each may succeed.

    Raises BadInput for a store that overwrites: two writers could then publish the same version.
    """
    seen = _one_after_the_other(store) or _all_at_once(store)
    if seen:
        raise BadInput(
            f"store {store.url}: {seen}; photoz needs conditional creates (If-None-Match: *), without them two jobs "
            f"publish the same version: use {KNOWN_TO_WORK}, or a local folder"
        )


def _one_after_the_other(store: Store) -> str | None:
    """What a second create of an object did that it must not do; None if it was refused."""
    key = f"{PREFIX}{uuid.uuid4().hex}"
    try:
        if not _created_first(store, key):
            return "a create under a new key was refused as if the object existed"
        second, kept = store.create(key, b"second"), _kept(store, key)
        if second:
            return f"a second create of an object was accepted{'' if kept == b'first' else ' and replaced the bytes'}"
        return (
            None if kept == b"first" else "a second create of an object was refused, but its bytes are not the first's"
        )
    finally:
        store.delete(key)


def _created_first(store: Store, key: str) -> bool:
    try:
        return store.create(key, b"first")
    except PhotozError:
        if store.local_path(key) is None:
            raise
        store.put(key, b"plain")  # raises the same for a folder that can't be written at all
        raise BadInput(
            f"store {store.url}: files can be written but not hard-linked, as commits need it; name a folder on "
            "another file system with --store (ext4, xfs, NFS …, not FAT or exFAT)"
        ) from None


def _all_at_once(store: Store) -> str | None:
    """What a race of creates did that it must not do; None if exactly one won and its bytes stayed."""
    key = f"{PREFIX}{uuid.uuid4().hex}"
    start = threading.Barrier(_RACERS)

    def race(number: int) -> bool:
        start.wait()
        return store.create(key, b"%d" % number)

    try:
        with ThreadPoolExecutor(_RACERS) as pool:
            winners = [number for number, won in enumerate(pool.map(race, range(_RACERS))) if won]
        if len(winners) != 1:
            return f"of {_RACERS} creates of one object at once {len(winners)} were accepted"
        return None if _kept(store, key) == b"%d" % winners[0] else "a create that lost the race replaced the bytes"
    finally:
        store.delete(key)


def _kept(store: Store, key: str) -> bytes | None:
    try:
        return store.get(key)
    except NoSuchKey:
        return None


def _valid(record: Path, place: str) -> bool:
    """Whether the file says that this place passed within the last seven days; whatever else it holds says no."""
    try:
        found = json.loads(record.read_bytes()[:10_000])
        return bool(found["store"] == place and 0 <= time.time() - float(found["passed_at"]) < VALID_S)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _remember(record: Path, place: str) -> None:
    # A cache folder that can't be written costs a probe in each process, no more.
    with suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary = record.with_name(f".tmp-{os.getpid()}-{record.name}")
        temporary.write_text(json.dumps({"store": place, "passed_at": time.time()}))
        temporary.replace(record)
