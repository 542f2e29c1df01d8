"""CPU time of reading large objects from an S3 server, beside boto3's own ways, alternated in one run.

    python -m benchmarks.reads [--mib 160] [--rounds 7]

Starts a SeaweedFS of its own. CPU time is user and system time of this process with all its threads, per MiB read;
the server's is not in it. The goal: a read with its SHA-256 costs at most 0.4 times boto3's download_file, which
checks no digest.
"""

import argparse
import hashlib
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

from photoz.artifacts import Artifact, Destination, Draft, Ref, load, open_store
from photoz.artifacts.store import Store
from tests.seaweedfs import ACCESS_KEY, SECRET_KEY, running_seaweedfs

BUCKET = "reads"
GOAL = 0.4
DOWNLOAD_FILE = "boto3 download_file"


def publish(store: Store, mib: int) -> Artifact:
    """An artifact of one large file."""
    with Draft.begin(Destination(store, "x"), kind="shards", recipe=1, settings={}) as draft:
        path = draft.scratch / "large.tar"
        with path.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(2**20))
        draft.put("large.tar", path)
        draft.finish_slice()
        draft.commit({})
    return load(store, Ref("shards", "x"))


def ways_to_read(client: Any, artifact: Artifact, folder: Path) -> dict[str, Callable[[], object]]:
    """Each way's name and the call that reads the file once."""
    entry, store = artifact.entry("large.tar"), artifact.store

    def stream() -> None:
        for _ in store.stream(entry.path):
            pass

    def stream_and_hash() -> None:
        digest = hashlib.sha256()
        for part in store.stream(entry.path):
            digest.update(part)
        assert digest.hexdigest() == entry.sha256

    def cached() -> None:
        with artifact.local("large.tar"):
            pass

    return {
        "Store.stream": stream,
        "Store.stream and SHA-256": stream_and_hash,
        "cached: stream, SHA-256, written and synced": cached,
        DOWNLOAD_FILE: lambda: client.download_file(BUCKET, entry.path, str(folder / "downloaded")),
        "boto3 get_object().read()": lambda: client.get_object(Bucket=BUCKET, Key=entry.path)["Body"].read(),
    }


def cost(read: Callable[[], object], folder: Path) -> tuple[float, float]:
    """(CPU, wall) seconds of one read, of which no file is there yet."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    (folder / "downloaded").unlink(missing_ok=True)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    read()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - started


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="photoz-reads-") as temporary:
        folder = Path(temporary)
        (folder / "server").mkdir()
        os.environ["PHOTOZ_CACHE"] = str(folder / "cache")
        with running_seaweedfs(folder / "server") as endpoint:
            os.environ |= {
                "AWS_ENDPOINT_URL_S3": endpoint, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
            }  # fmt: skip
            client = boto3.client("s3")
            client.create_bucket(Bucket=BUCKET)
            ways = ways_to_read(client, publish(open_store(f"s3://{BUCKET}"), options.mib), folder)
            for read in ways.values():
                read()  # connections, imports and the server's own caches are not what is measured
            rounds = [{name: cost(read, folder) for name, read in ways.items()} for _ in range(options.rounds)]
    cpu = {name: statistics.median(one[name][0] for one in rounds) for name in ways}
    wall = {name: statistics.median(one[name][1] for one in rounds) for name in ways}
    print(f"\n| {options.mib} MiB, median of {options.rounds} | CPU ms a MiB | of download_file's | MiB/s |")
    print("|---|---|---|---|")
    for name in ways:
        ratio, speed = cpu[name] / cpu[DOWNLOAD_FILE], options.mib / wall[name]
        print(f"| {name} | {1000 * cpu[name] / options.mib:.2f} | {ratio:.2f} | {speed:.0f} |")
    met = cpu["Store.stream and SHA-256"] <= GOAL * cpu[DOWNLOAD_FILE]
    print(f"\nGoal of {GOAL} for stream and SHA-256: {'met' if met else 'not met'}.")


if __name__ == "__main__":
    main()
