"""Artifacts read through the cache: wrong bytes from a server, files that vanish, and many processes at once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from photoz.artifacts import Artifact, Destination, Draft, Ref, Store, artifact, load, open_store, upkeep
from photoz.artifacts.store import SMALL_BYTES, NoSuchKey, StoredObject
from photoz.errors import BadFormat, MissingArtifact, TryAgain
from photoz.runtime import cache_folder

DATA = bytes(range(256)) * 12_000


class Remote:
    """A folder's store as if it were a server's: no local files, and what `spoil` makes of the n-th reply."""

    def __init__(self, inner: Store, spoil: Callable[[bytes, int], bytes] = lambda data, nth: data) -> None:
        self.inner, self.url, self.spoil = inner, "remote", spoil
        self.streamed = 0
        self.before_get: Callable[[str], object] = lambda key: None

    def get(self, key: str, limit: int = SMALL_BYTES) -> bytes:
        self.before_get(key)
        return self.inner.get(key, limit)

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        self.streamed += 1
        data = memoryview(self.spoil(self.inner.get(key), self.streamed))
        for at in range(0, len(data), 2**20):
            yield data[at : at + 2**20]

    def put(self, key: str, source: bytes | Path) -> None:
        self.inner.put(key, source)

    def create(self, key: str, source: bytes | Path) -> bool:
        return self.inner.create(key, source)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def local_path(self, key: str) -> Path | None:
        return None


def publish(store: Store, files: dict[str, bytes], rows: int | None = None) -> None:
    with Draft.begin(Destination(store, "x"), kind="shards", recipe=1, settings={"of": sorted(files)}) as draft:
        for name, data in files.items():
            draft.put(name, data, rows=rows)
        draft.finish_slice()
        draft.commit({})


def flipped(data: bytes) -> bytes:
    return data[:-7] + bytes([data[-7] ^ 1]) + data[-6:]


@pytest.fixture
def remote(file_store: Store) -> Remote:
    publish(file_store, {"a.tar": DATA})
    return Remote(file_store)


def one(store: Store) -> Artifact:
    return load(store, Ref("shards", "x"))


def exported(store: Store, folder: Path) -> bytes:
    upkeep.export(one(store), folder)
    return (folder / "a.tar").read_bytes()


SPOILT: list[Callable[[bytes], bytes]] = [flipped, lambda data: data[:-1], lambda data: data + b"x", lambda data: b""]


@pytest.mark.parametrize("spoil", SPOILT)
def test_wrong_bytes_from_a_server_are_fetched_once_more(
    remote: Remote, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    remote.spoil = lambda data, nth: spoil(data) if nth % 2 else data
    assert one(remote).read("a.tar") == DATA
    assert one(remote).read("a.tar") == DATA
    assert remote.streamed == 2
    assert upkeep.verify(one(remote)) == len(DATA)
    assert exported(remote, tmp_path / "out") == DATA
    assert remote.streamed == 6


@pytest.mark.parametrize("spoil", SPOILT)
def test_wrong_bytes_twice_are_named_and_never_kept(
    remote: Remote, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    remote.spoil = lambda data, nth: spoil(data)
    with pytest.raises(TryAgain, match=r"shards/x@v1: shards/x/data/.*a\.tar: .*, twice; .*artifacts verify"):
        one(remote).read("a.tar")
    assert remote.streamed == 2
    with pytest.raises(TryAgain, match=r"a\.tar: .*, twice"):
        upkeep.export(one(remote), tmp_path / "out")
    assert not (tmp_path / "out" / "a.tar").exists()
    with pytest.raises(BadFormat, match=r"a\.tar: "):
        upkeep.verify(one(remote))
    assert not [path for path in (cache_folder() / "objects").rglob("*") if path.is_file()]


def test_a_payload_file_that_is_gone_is_named(remote: Remote, tmp_path: Path) -> None:
    remote.delete(one(remote).entry("a.tar").path)
    with pytest.raises(BadFormat, match=r"a\.tar: the file is missing from the store"):
        one(remote).read("a.tar")
    with pytest.raises(BadFormat, match=r"a\.tar: the file is missing from the store"):
        upkeep.export(one(remote), tmp_path / "out")


def test_no_large_file_is_read_into_memory_at_once(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "SMALL_BYTES", 1000)
    with pytest.raises(BadFormat, match=rf"a\.tar has {len(DATA)} bytes; expected a small file, at most 1000"):
        one(remote).read("a.tar")
    assert remote.streamed == 0


def test_a_table_with_other_rows_than_the_manifest_says_is_refused(file_store: Store) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"ra": [1.0, 2.0]}), sink)
    publish(file_store, {"t.parquet": sink.getvalue().to_pybytes()}, rows=3)
    with pytest.raises(BadFormat, match=r"t\.parquet: 2 rows, the manifest says 3"):
        one(file_store).table("t.parquet")
    with pytest.raises(BadFormat, match="2 rows"), one(file_store).parquet("t.parquet"):
        pass


def test_latest_is_found_while_versions_are_removed_under_the_reader(remote: Remote) -> None:
    publish(remote.inner, {"b.tar": b"second"})
    publish(remote.inner, {"c.tar": b"third"})

    def remove_it(key: str) -> None:
        for version in (3, 2):
            if key == f"shards/x/v{version}/manifest.json":
                upkeep.remove(load(remote.inner, Ref("shards", "x", version)))

    remote.before_get = remove_it
    assert one(remote).ref.version == 1


def test_a_listing_that_never_forgets_ends_in_missing(remote: Remote) -> None:
    listed = list(remote.list(""))
    remote.list = lambda prefix: (item for item in listed if item.key.startswith(prefix))  # type: ignore[method-assign]

    def gone(key: str) -> None:
        raise NoSuchKey(key)

    remote.before_get = gone
    with pytest.raises(MissingArtifact):
        one(remote)


READER = """
import hashlib, os, random, sys
from photoz.artifacts import Ref, load, open_store

url, seed, reads, log = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
shards = load(open_store(url), Ref("shards", "x"))
stream = type(shards.store).stream

def counted(self, key, *span):
    with open(log, "a") as file:
        file.write(key + "\\n")
    return stream(self, key, *span)

type(shards.store).stream = counted
names, draw = shards.names(), random.Random(seed)
for _ in range(reads):
    name = draw.choice(names)
    with shards.local(name) as path:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shards.entry(name).sha256, name
print("read all")
"""


def read_at_once(url: str, processes: int, reads: int, log: Path, limit: int) -> None:
    environment = os.environ | {"PHOTOZ_CACHE_SIZE": f"{limit}B"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", READER, url, str(seed), str(reads), str(log)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(processes)
    ]
    results = [process.communicate(timeout=300) for process in running]
    assert [out for out, _ in results] == ["read all\n"] * processes, json.dumps(results)[-3000:]


def cached_bytes() -> int:
    return sum(path.stat().st_size for path in (cache_folder() / "objects").rglob("*") if path.is_file())


@pytest.mark.real
def test_many_processes_share_a_small_cache_and_read_right_bytes(s3_url: str, tmp_path: Path) -> None:
    files = {f"{i:02d}.tar": os.urandom(100_000 + 20_000 * i) for i in range(16)}
    publish(open_store(s3_url), files)
    total = sum(map(len, files.values()))
    roomy, small = tmp_path / "roomy", tmp_path / "small"
    read_at_once(s3_url, 8, 80, roomy, 2 * total)
    assert len(roomy.read_text().split()) == len(set(roomy.read_text().split())) == 16  # each once, by one of eight
    assert cached_bytes() == total
    read_at_once(s3_url, 8, 80, small, total // 3)
    assert 16 - 6 <= len(small.read_text().split()) < 8 * 80
    assert 0 < cached_bytes() <= total // 3
    assert not list((cache_folder() / "objects").rglob("*.part"))
