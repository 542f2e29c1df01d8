"""The local cache: its limit, what leaves first, who holds what, and what damage and crashes come to."""

import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photoz.artifacts import cache as cache_module
from photoz.artifacts.cache import Cache
from photoz.errors import BadInput, TryAgain
from photoz.runtime import cache_size


def content(name: str, size: int) -> bytes:
    """The one right content of a file."""
    return hashlib.shake_128(name.encode()).digest(size)


class Objects:
    """Files by name in a cache, and how often each had to be made."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.cache = Cache(folder, limit)
        self.made: Counter[str] = Counter()

    def holding(self, name: str, size: int = 1000) -> AbstractContextManager[BinaryIO]:
        def fill(file: BinaryIO) -> None:
            self.made[name] += 1
            file.write(content(name, size))

        def check(path: Path) -> str | None:
            return None if path.read_bytes() == content(name, size) else "other bytes"

        return self.cache.holding(f"objects/00/{name}", size, fill, check)

    def use(self, name: str, size: int = 1000) -> None:
        with self.holding(name, size) as file:
            assert file.read() == content(name, size)

    def there(self) -> set[str]:
        return {path.name for path in (self.cache.folder / "objects").rglob("*") if path.is_file()}

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.cache.folder / "objects").rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@contextmanager
def as_another_process() -> Iterator[None]:
    """Forget what this process has checked and counted."""
    cache_module._checked.clear()
    cache_module._counted.clear()
    yield


def test_a_file_is_made_once_and_then_found(folder: Path) -> None:
    objects = Objects(folder, 10_000)
    for _ in range(3):
        objects.use("a")
    assert objects.made == {"a": 1}


@given(
    uses=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40),
    limit=st.integers(0, 4000),
)
def test_the_limit_holds_and_what_was_used_longest_ago_leaves_first(uses: list[tuple[int, bool]], limit: int) -> None:
    with TemporaryDirectory() as temporary:
        objects = Objects(Path(temporary), limit)
        recent: list[str] = []
        for number, restarted in uses:
            name = f"{number}"
            if restarted:
                with as_another_process():
                    objects.use(name, 100 * number)
            else:
                objects.use(name, 100 * number)
            recent = [other for other in recent if other != name] + [name]
            there = objects.there()
            assert objects.bytes() <= limit
            # Whatever is left is newer than whatever has gone.
            assert there == set(recent[len(recent) - len(there) :])
            if 100 * number <= limit * 15 // 16:
                assert name in there


def test_nothing_leaves_while_there_is_room(folder: Path) -> None:
    objects = Objects(folder, 10_000)
    for name in "abcdefghij":
        objects.use(name)
    assert objects.there() == set("abcdefghij")


def test_a_file_in_use_stays_whatever_the_limit(folder: Path) -> None:
    objects = Objects(folder, 2_500)
    with objects.holding("held") as file:
        for name in "abcdef":
            objects.use(name)
        assert "held" in objects.there()
        assert Path(file.name).read_bytes() == content("held", 1000)
    for name in "abc":
        objects.use(name)
    assert "held" not in objects.there()


def test_a_file_larger_than_the_limit_is_kept_only_while_in_use(folder: Path) -> None:
    objects = Objects(folder, 5_000)
    objects.use("small")
    with objects.holding("large", 20_000) as file:
        assert file.read() == content("large", 20_000)
        assert objects.there() == {"large"}
    assert objects.there() == set()


def test_a_map_keeps_its_file_until_it_is_gone(folder: Path) -> None:
    objects = Objects(folder, 500)
    with objects.holding("mapped") as file:
        images = np.memmap(file, np.uint8, "r")
    objects.use("other")
    assert objects.there() == {"mapped"}
    part = images[3:]
    del images
    objects.use("other")
    assert part.tobytes() == content("mapped", 1000)[3:] and objects.there() == {"mapped"}
    del part
    objects.use("other")
    assert objects.there() == set()


@pytest.mark.parametrize("damage", ["one bit", "cut short", "empty"])
def test_a_damaged_file_is_found_by_the_next_process_and_made_again(folder: Path, damage: str) -> None:
    objects = Objects(folder, 10_000)
    objects.use("a")
    (path,) = (folder / "objects").rglob("a")
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes({"one bit": data, "cut short": data[:100], "empty": b""}[damage])
    with as_another_process():
        objects.use("a")
        objects.use("a")
    assert objects.made == {"a": 2}


def test_a_damaged_file_in_use_is_replaced_without_harm_to_its_users(folder: Path) -> None:
    objects = Objects(folder, 10_000)
    with objects.holding("a") as file:
        path = Path(file.name)
        path.write_bytes(b"x" * 1000)
        with as_another_process():
            objects.use("a")
        assert path.read_bytes() == content("a", 1000)
        assert file.read() == b"x" * 1000


def test_an_account_that_is_lost_or_wrong_is_made_again(folder: Path) -> None:
    objects = Objects(folder, 3_000)
    for said in ("", "nonsense", "0", "-5", "99999999"):
        for name in "abc":
            objects.use(name)
        (folder / "bytes").write_text(said)
        with as_another_process():
            for name in "defg":
                objects.use(name)
        assert objects.bytes() <= 3_000


DIES_WRITING = """
import os, signal, sys
from pathlib import Path
from photoz.artifacts.cache import Cache

def fill(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

with Cache(Path(sys.argv[1]), 10_000).holding("objects/00/dead", 1000, fill, lambda path: None):
    pass
"""


@pytest.mark.real
@pytest.mark.parametrize("next_name", ["dead", "other"])
def test_what_a_killed_process_left_is_never_used_and_goes(folder: Path, next_name: str) -> None:
    died = subprocess.run([sys.executable, "-c", DIES_WRITING, str(folder)], check=False)
    assert died.returncode == -signal.SIGKILL
    objects = Objects(folder, 10_000)
    assert objects.there() == {"dead.part"}
    objects.use(next_name)
    assert objects.there() == {next_name}


def test_a_failure_to_fill_leaves_nothing_and_is_told_as_it_is(folder: Path) -> None:
    def fill(file: BinaryIO) -> None:
        file.write(b"some")
        raise TryAgain("the server went away")

    objects = Objects(folder, 10_000)
    with (
        pytest.raises(TryAgain, match="the server went away"),
        objects.cache.holding("objects/00/a", 1000, fill, lambda path: None),
    ):
        pass
    assert objects.there() == set()
    objects.use("a")


def test_threads_that_want_the_same_missing_file_make_it_once(folder: Path) -> None:
    objects, start = Objects(folder, 10_000_000), Barrier(8)

    def use(_: int) -> None:
        start.wait()
        objects.use("a", 1_000_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert objects.made == {"a": 1}


def test_folders_and_files_are_private(folder: Path) -> None:
    Objects(folder).use("a")
    modes = {path.relative_to(folder).name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes == {"objects": 0o700, "00": 0o700, "a": 0o600, "bytes": 0o600}


def test_a_file_too_large_for_the_disk_is_one_line_to_try_again(folder: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(TryAgain, match=r"File too large; free some space, or name a larger disk with PHOTOZ_CACHE"):
            Objects(folder).use("a", 60_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Objects(folder).there() == set()


def test_a_place_that_can_t_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BadInput, match=r"file: File exists; expected a folder to write to: name one with PHOTOZ_CACHE"):
        Objects(tmp_path / "file").use("a")
    with pytest.raises(BadInput, match="PHOTOZ_CACHE"):
        Objects(tmp_path / "file" / "below").use("a")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to somebody else")
def test_a_folder_where_others_may_write_is_refused(folder: Path) -> None:
    objects = Objects(folder)
    objects.use("a")
    (folder / "objects" / "00").chmod(0o777)
    os.chown(folder / "objects" / "00", 12345, 12345)
    with pytest.raises(BadInput, match="belongs to another user"):
        objects.use("a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("50GB", 50 * 10**9), ("800 mb", 8 * 10**8), ("1.5T", 15 * 10**11), ("0", 0), ("12345", 12345), ("", None)],
)
def test_the_limit_is_a_number_and_a_unit(monkeypatch: pytest.MonkeyPatch, text: str, expected: int | None) -> None:
    monkeypatch.setenv("PHOTOZ_CACHE_SIZE", text)
    assert cache_size() == expected


@pytest.mark.parametrize("text", ["lots", "-1GB", "50 XB", "1e3", "GB", "nan", "٣GB", "9" * 40])
def test_a_limit_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PHOTOZ_CACHE_SIZE", text)
    with pytest.raises(BadInput, match=r"PHOTOZ_CACHE_SIZE=.*expected a number and a unit, such as 50GB"):
        cache_size()


def test_without_a_limit_half_of_what_the_disk_could_give_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_bytes = 10_000

    class Usage:
        @property
        def free(self) -> int:
            return disk_bytes - objects.bytes()

    objects = Objects(folder)
    monkeypatch.setattr("photoz.artifacts.cache.shutil.disk_usage", lambda path: Usage())
    for name in "abcdefghijklmno":
        objects.use(name)
        assert objects.bytes() <= disk_bytes / 2
    assert len(objects.there()) >= 4


def test_a_file_gets_its_name_while_nobody_counts(tmp_path: Path) -> None:
    """Whoever counted meanwhile would see neither the unfinished file nor the whole one."""
    objects, written, leave = Objects(tmp_path), Barrier(2), Barrier(2)

    def fill(file: BinaryIO) -> None:
        file.write(content("slow", 1000))
        written.wait(20)
        leave.wait(20)

    def make() -> None:
        with objects.cache.holding("objects/00/slow", 1000, fill, lambda path: None):
            pass

    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(make)
        written.wait(20)
        with objects.cache._account():
            leave.wait(20)
            with pytest.raises(TimeoutError):
                making.result(timeout=0.3)
            assert objects.there() == {"slow.part"}
        making.result(timeout=20)
    assert objects.there() == {"slow"}
