"""How many requests a slice and the commit make, of 10 to 10,000 slices, in a folder and on S3; and what `gc` takes.

    python -m benchmarks.requests [--slices 10 100 1000 10000] [--late 5] [--names 500 2000]

Slices of one small piece each run one after the other in one process. Of 1,000 and more, all but the last are forged:
the objects that they would leave are written directly. On S3 a server of its own is started (SeaweedFS).
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import boto3

from photoz.artifacts import Destination, Draft, FileEntry, PieceReceipt, Store, open_store
from photoz.artifacts.finished import FAN_OUT
from photoz.artifacts.garbage import garbage
from photoz.artifacts.manifest import fingerprint_of, sha256_hex
from photoz.artifacts.probe import ensure_conditional_create
from photoz.artifacts.receipts import SliceReceipt, encode
from photoz.artifacts.refs import data_prefix, finished_name, piece_receipt_name, slice_receipt_name
from photoz.runtime import TaskSlice
from tests.counting_store import Counting
from tests.sample_job import write
from tests.seaweedfs import ACCESS_KEY, SECRET_KEY, running_seaweedfs

FORGED_FROM = 1000
THREADS = 16
FACTS = {"samples": 1000, "failures": 3, "image": {"format": "jpg", "channels": 3, "height": 64, "width": 64}}


def run_slice(store: Store, index: int, count: int, name: str) -> tuple[Counting, Counting, float]:
    """(requests of the slice, requests of its commit, seconds of the commit)."""
    counted, commit, started = Counting(store), Counting(store), time.monotonic()
    dest = Destination(counted, name, TaskSlice(index, count))
    with Draft.begin(dest, kind="shards", recipe=1, settings={"n": count}) as draft:
        for piece in draft.todo([f"train-{number:06d}" for number in range(count)]):
            draft.finish_piece(piece, [draft.put(f"{piece}.tar", piece.encode(), rows=1000)], FACTS)
        if draft.finish_slice():
            draft._dest = Destination(commit, name, TaskSlice(index, count))
            draft._folder = type(draft._folder)(commit, draft._folder.prefix)
            started = time.monotonic()
            draft.commit({"receipts": len(draft.receipts())})
            return counted, commit, time.monotonic() - started
    return counted, commit, 0.0


def forge(store: Store, count: int, done: int, name: str) -> None:
    """What the first `done` slices leave, one piece each."""
    prefix = data_prefix("shards", name, fingerprint_of("shards", 1, {"n": count}, []))
    objects: dict[str, bytes] = {}
    for index in range(done):
        piece = f"train-{index:06d}"
        file = FileEntry(path=f"{prefix}{piece}.tar", bytes=len(piece), sha256=sha256_hex(piece.encode()), rows=1000)
        receipt = PieceReceipt(piece=piece, files=(file,), facts=FACTS)
        objects[file.path] = piece.encode()
        objects[prefix + piece_receipt_name(piece)] = encode(receipt)
        whole = SliceReceipt(index=index, count=count, pieces=(receipt,))
        objects[prefix + slice_receipt_name(index, count)] = encode(whole)
    level, nodes, complete = 0, count, done
    while nodes > 1:
        for node in range(complete):
            objects[prefix + finished_name(count, level, node // FAN_OUT, node)] = b"{}"
        level, nodes, complete = level + 1, -(-nodes // FAN_OUT), complete // FAN_OUT
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(partial(_write, store), objects.items()))


def _write(store: Store, item: tuple[str, bytes]) -> None:
    key, data = item
    path = store.local_path(key)
    if path is None:
        store.put(key, data)
    else:  # unlike the store itself without waiting for the disk: that takes minutes for so many
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def measure(where: str, store: Store, count: int, late: int) -> None:
    """Print a row: the requests of a slice, most and median, and those of the commit."""
    name = f"n{count}"
    if count >= FORGED_FROM:
        forge(store, count, count - late, name)
        indices = range(count - late, count)
    else:
        indices = range(count)
    runs = [run_slice(store, index, count, name) for index in indices]
    slices = [sum(counted.requests.values()) for counted, _, _ in runs[:-1]]
    listed = [counted.listed for counted, _, _ in runs[:-1]]
    _, commit, seconds = runs[-1]
    requests = sum(commit.requests.values())
    print(
        f"| {where} | {count:,} | {statistics.median(slices):.0f} | {max(slices)} | {max(listed):,} | {requests:,} | "
        f"{commit.listed:,} | {seconds:.2f} s |",
        flush=True,
    )


@contextmanager
def bucket(folder: Path) -> Iterator[Store]:
    """A store on an S3 server of our own."""
    with running_seaweedfs(folder) as endpoint:
        os.environ |= {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="requests")
        yield open_store("s3://requests/photoz")


def measure_gc(names: int) -> None:
    """Print a row: the seconds that `artifacts gc` takes to look through a folder with so many names."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        write(store, "base", pieces=["a"])
        for number in range(names - 1):
            copy = Path(folder) / "shards" / f"n{number:05d}"
            shutil.copytree(Path(folder) / "shards" / "base", copy)
            manifest = copy / "v1" / "manifest.json"
            text = manifest.read_text().replace("shards/base/", f"shards/{copy.name}/")
            manifest.write_text(text.replace('"name": "base"', f'"name": "{copy.name}"'))
        started = time.monotonic()
        found = garbage(store, older_than_s=-5)
        print(f"| {names:,} | {len(found):,} | {time.monotonic() - started:.1f} s |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slices", type=int, nargs="*", default=[10, 100, 1000, 10_000])
    parser.add_argument("--late", type=int, default=5, help="slices that are run, of 1,000 and more: the last ones")
    parser.add_argument("--names", type=int, nargs="*", default=[500, 2000])
    parser.add_argument("--where", nargs="*", default=["folder", "S3"])
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f}, {sys.platform}, {os.cpu_count()} cores\n")
    print("| store | slices | requests a slice, median | most | keys listed, most | commit: requests | keys | time |")
    print("|---|---|---|---|---|---|---|---|")
    for where in options.where:
        with (
            tempfile.TemporaryDirectory() as folder,
            bucket(Path(folder)) if where == "S3" else nullcontext(open_store(folder)) as store,
        ):
            ensure_conditional_create(Counting(store))
            for count in options.slices:
                measure(where, store, count, options.late)
    print("\n| names | objects to delete | artifacts gc |\n|---|---|---|")
    for names in options.names:
        measure_gc(names)


if __name__ == "__main__":
    main()
