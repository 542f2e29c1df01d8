"""What every backend of the object store must do; run on a folder and on a real S3 server."""

import errno
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from photoz.artifacts import open_store
from photoz.artifacts.probe import check_conditional_create
from photoz.artifacts.store import NoSuchKey, Store
from photoz.errors import BadFormat, BadInput

# No key is a folder of another: a file system can't hold both, and the store layout never asks for it.
KEYS = st.sampled_from(["aa", "a/b", "a/b.json", "a-b/c", "a.b", "b/v1/manifest.json", "b/v10/m", "b/v2/m"])


def streamed(store: Store, key: str, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(bytes(part) for part in store.stream(key, start, stop))


def test_what_is_put_is_got_whole_and_in_ranges(store: Store) -> None:
    data = bytes(range(256)) * 41
    store.put("shards/x/data/f/a.tar", data)
    assert store.get("shards/x/data/f/a.tar") == data
    assert streamed(store, "shards/x/data/f/a.tar", 100, 150) == data[100:150]
    assert streamed(store, "shards/x/data/f/a.tar", len(data) - 3, len(data) + 47) == data[-3:]
    assert streamed(store, "shards/x/data/f/a.tar", 5) == data[5:]
    assert streamed(store, "shards/x/data/f/a.tar") == data


def test_a_file_is_put_as_its_bytes_are(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    store.put("k", source)
    store.put("empty", b"")
    assert store.get("k") == source.read_bytes()
    assert store.get("empty") == b""


def test_put_replaces_and_create_does_not(store: Store) -> None:
    store.put("k", b"old")
    store.put("k", b"new")
    assert store.create("k", b"newer") is False
    assert store.create("k", b"new") is False, "the same bytes are another writer's all the same"
    assert store.get("k") == b"new"
    assert store.create("other", b"first") is True
    assert store.get("other") == b"first"


def test_reading_what_is_not_there_says_no_such_key(store: Store) -> None:
    for read in (lambda: store.get("no/such"), lambda: streamed(store, "no/such"), lambda: streamed(store, "no", 0, 1)):
        with pytest.raises(NoSuchKey):
            read()


def test_more_than_was_expected_is_refused_before_it_fills_the_memory(store: Store) -> None:
    store.put("large", bytes(1000))
    assert len(store.get("large", limit=1000)) == 1000
    with pytest.raises(BadFormat, match="more than 999 bytes"):
        store.get("large", limit=999)


def test_delete_removes_and_forgives_what_is_gone(store: Store) -> None:
    store.put("a/b/c", b"1")
    store.delete("a/b/c")
    store.delete("a/b/c")
    assert list(store.list("")) == []
    with pytest.raises(NoSuchKey):
        store.get("a/b/c")


def test_one_of_many_creators_wins(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: store.create("race", b"%d" % i), range(16)))
        equal = list(pool.map(lambda _: store.create("equal", b"same"), range(16)))
    assert Counter(won) == Counter(equal) == {True: 1, False: 15}
    assert store.get("race") == b"%d" % won.index(True)


def test_conditional_creates_pass_the_probe(store: Store) -> None:
    check_conditional_create(store)
    assert list(store.list("")) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    operations=st.lists(st.tuples(st.sampled_from(["put", "create", "delete"]), KEYS, st.binary(max_size=5))),
    prefix=st.sampled_from(["", "a", "a/", "a/b", "b/v", "b/v1", "c"]),
)
def test_a_store_behaves_like_a_dictionary(store: Store, operations: list[tuple[str, str, bytes]], prefix: str) -> None:
    for item in list(store.list("")):
        store.delete(item.key)
    model: dict[str, bytes] = {}
    for verb, key, data in operations:
        if verb == "put":
            store.put(key, data)
            model[key] = data
        elif verb == "create":
            created = store.create(key, data)
            if key not in model:
                assert created
                model[key] = data
        else:
            store.delete(key)
            model.pop(key, None)
    listed = sorted((item.key, item.bytes) for item in store.list(prefix))
    assert listed == sorted((key, len(data)) for key, data in model.items() if key.startswith(prefix))
    assert {key: store.get(key) for key in model} == model


def test_writing_beside_a_delete_that_empties_the_folder_never_fails(store: Store) -> None:
    def come_and_go(writer: int) -> None:
        for _ in range(50):
            store.put(f"a/b/{writer}", b"here")
            store.delete(f"a/b/{writer}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    assert list(store.list("")) == []


def test_a_folder_that_goes_while_it_is_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mkdir finds a folder; before it looks what it has found, another process's delete has removed it."""
    make, times = os.mkdir, iter(range(3))

    def found_then_gone(path: str, *mode: int) -> None:
        if next(times, None) is not None:
            raise FileExistsError(path)
        make(path, *mode)

    store = open_store(str(tmp_path / "store"))
    monkeypatch.setattr(os, "mkdir", found_then_gone)
    store.put("a/b", b"here")
    assert store.get("a/b") == b"here"
    with pytest.raises(BadInput, match="the store needs a folder of its own"):
        store.put("a/b/c", b"there")


def test_a_folder_whose_parent_goes_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, folder, times = os.mkdir, tmp_path / "store" / "a" / "b", iter(range(4))

    def parent_gone(path: Path, *mode: int) -> None:
        if path == folder and next(times, None) is not None:
            raise FileNotFoundError(errno.ENOENT, "gone", str(path))
        make(path, *mode)

    store = open_store(str(tmp_path / "store"))
    monkeypatch.setattr(os, "mkdir", parent_gone)
    store.put("a/b/c", b"here")
    assert store.get("a/b/c") == b"here" and next(times, None) is None


def test_a_link_that_leads_nowhere_in_a_folders_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a").symlink_to(tmp_path / "nowhere")
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(BadInput, match="something else stands where a folder is needed"):
        store.put("a/b/c", b"here")


def test_a_folder_that_comes_and_goes_between_two_looks_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, folder, seen = os.stat, tmp_path / "store" / "a", iter([False, True, False])

    def now_and_then(path: object, **options: object) -> os.stat_result:
        if path == folder and not next(seen, True):
            raise FileNotFoundError(errno.ENOENT, "gone", str(path))
        return look(path, **options)  # type: ignore[arg-type]

    folder.mkdir(parents=True)
    store = open_store(str(tmp_path / "store"))
    monkeypatch.setattr(os, "stat", now_and_then)
    store.put("a/b", b"here")
    assert store.get("a/b") == b"here"
