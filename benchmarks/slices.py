"""How much faster shard and infer are in two slices, a core each, than in one process on one core.

    python -m benchmarks.slices [--galaxies 2400]

A slice has the cores that its scheduler gives it, so here each has one; a process that may use both cores stands beside
them. Alternated, the median of three rounds; 2 would be perfect. The payloads must be the same bytes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from photoz.artifacts import Ref, load, open_store

ROUNDS = 3
CORES = sorted(os.sched_getaffinity(0))[:2]


def photoz_job(*arguments: str, cores: Sequence[int] = CORES) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "jobs", *arguments]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, preexec_fn=lambda: os.sched_setaffinity(0, cores))


def seconds(job: list[str], name: str, slices: list[list[int]]) -> float:
    """Seconds until all slices of a job have ended, each on its cores."""
    started = time.monotonic()
    running = [
        photoz_job(*job, "--name", name, "--task", str(task), "--tasks", str(len(slices)), cores=cores)
        for task, cores in enumerate(slices)
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"photoz-job {' '.join(job)} failed")
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--galaxies", type=int, default=2400)
    galaxies = parser.parse_args().galaxies
    first, second = CORES
    ways = {"one core": [[first]], "two slices": [[first], [second]], "both cores": [CORES]}
    print(f"{time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f}, {galaxies} galaxies, start-up included")
    print("\n| job | one process, one core | two slices, a core each | times as fast | one process, both cores |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PHOTOZ_STORE"] = store = str(Path(folder) / "store")
        for job in (
            ["catalog", "--survey", "embedded", "--limit", str(galaxies)],
            ["shard", "--samples-per-shard", "50"],
            ["train", "--epochs", "1"],
        ):
            if photoz_job(*job, "--name", "base").wait():
                raise SystemExit(f"photoz-job {job[0]} failed")
        jobs = {
            "shards": ["shard", "--catalog", "catalog/base", "--samples-per-shard", "50"],
            "predictions": ["infer", "--model", "model/base", "--shards", "shards/base", "--split", "all", "--tta"],
        }
        for kind, job in jobs.items():
            taken: dict[str, list[float]] = {way: [] for way in ways}
            names = []
            for number in range(ROUNDS):
                for way, slices in ways.items():
                    names.append(f"{way.replace(' ', '-')}-{number}")
                    taken[way].append(seconds(job, names[-1], slices))
            digests = {load(open_store(store), Ref(kind, name)).payload_sha256 for name in names}
            assert len(digests) == 1, f"{kind}: slices gave other bytes"
            alone, sliced, both = (statistics.median(taken[way]) for way in ways)
            times = statistics.median(a / s for a, s in zip(taken["one core"], taken["two slices"], strict=True))
            print(f"| {job[0]} | {alone:.1f} s | {sliced:.1f} s | {times:.2f} | {both:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
