"""Peak memory of the jobs at two sizes of catalogue: it must not grow with the number of galaxies.

    python -m benchmarks.memory [--small 20000] [--large 200000] [--s3]

Runs catalog, shard, infer, artifacts verify and artifacts export as processes of their own, on galaxies whose 32x32
JPEG files are a few hundred that many rows share, and prints each one's largest resident set (ru_maxrss). With --s3
the store is a SeaweedFS of its own, and files come through the local cache.

Only the standard library is imported here: Linux counts the memory of the process that starts another as its own.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

TRAINED_ON = 2_000
FILES = 300
SIDE_PX = 32
ALLOWED = 1.2


def make_galaxies(folder: Path, count: int) -> None:
    """Write `<count>.parquet`, a user's table of galaxies all over the sky, and the images it names."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng = np.random.default_rng(0)
    (folder / "images").mkdir(exist_ok=True)
    for i in range(FILES):
        pixels = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.jpg", quality=75)
    columns = {
        "object_id": [f"galaxy-{i:09d}" for i in range(count)],
        "ra": rng.uniform(0, 360, count),
        "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, count))),
        "z_spec": rng.uniform(0.01, 0.4, count),
        **{f"mag_{band}": rng.uniform(14, 18, count) for band in "ugriz"},
        "image": [f"images/{i % FILES}.jpg" for i in range(count)],
    }
    pq.write_table(pa.table(columns), folder / f"{count}.parquet")


def peak_mb(*arguments: str) -> float:
    """Run one command of photoz-job; its largest resident set in MB."""
    print(f"$ photoz-job {' '.join(arguments)}", file=sys.stderr, flush=True)
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "jobs", *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"photoz-job {arguments[0]} ended with {process.returncode}")
    print(f"  {used.ru_maxrss / 1024:.0f} MB, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return used.ru_maxrss * 1024 / 1e6


def prepare(folder: Path, store: str, count: int) -> dict[str, float]:
    """Make `count` galaxies and their catalogue and shards; the two jobs' peaks in MB."""
    making = multiprocessing.get_context("spawn").Process(target=make_galaxies, args=(folder, count))
    making.start()
    making.join()
    name = f"of-{count}"
    table = ("--survey", "table", "--table", str(folder / f"{count}.parquet"))
    return {
        "catalog": peak_mb("catalog", "--store", store, "--name", name, *table),
        "shard": peak_mb("shard", "--store", store, "--catalog", f"catalog/{name}"),
    }


def measured(folder: Path, store: str, count: int) -> dict[str, float]:
    """Peak of each job in MB at `count` galaxies."""
    shards = f"shards/of-{count}"
    return prepare(folder, store, count) | {
        "infer": peak_mb(
            "infer", "--store", store, "--model", f"model/of-{TRAINED_ON}", "--shards", shards, "--split", "all"
        ),
        "verify": peak_mb("artifacts", "verify", shards, "--store", store),
        "export": peak_mb("artifacts", "export", shards, str(folder / f"export-{count}"), "--store", store),
    }


@contextmanager
def a_store(folder: Path, s3: bool) -> Iterator[str]:
    """A folder's store, or a bucket of a server of its own."""
    if not s3:
        yield str(folder / "store")
        return
    from tests.seaweedfs import ACCESS_KEY, SECRET_KEY, running_seaweedfs

    (folder / "server").mkdir()
    with running_seaweedfs(folder / "server") as endpoint:
        os.environ |= {
            "AWS_ENDPOINT_URL_S3": endpoint, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        making = "import boto3; boto3.client('s3').create_bucket(Bucket='memory')"
        subprocess.run([sys.executable, "-c", making], check=True)
        yield "s3://memory"


def main() -> None:
    """Measure both sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=200_000)
    parser.add_argument("--s3", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="photoz-memory-")))
        os.environ["PHOTOZ_CACHE"] = str(folder / "cache")
        store = stack.enter_context(a_store(folder, options.s3))
        prepare(folder, store, TRAINED_ON)
        peak_mb("train", "--store", store, "--shards", f"shards/of-{TRAINED_ON}", "--epochs", "1")
        small, large = (measured(folder, store, count) for count in (options.small, options.large))
    print(f"\n| peak memory, MB | {options.small:,} galaxies | {options.large:,} galaxies | ratio |")
    print("|---|---|---|---|")
    for job, peak in small.items():
        said = "" if job == "catalog" or large[job] <= ALLOWED * peak else f" (more than {ALLOWED})"
        print(f"| {job} | {peak:.0f} | {large[job]:.0f} | {large[job] / peak:.2f}{said} |")


if __name__ == "__main__":
    main()
