"""How much faster shard and infer are in two slices than in one, on one machine and in one run.

    python -m benchmarks.slices [--galaxies 1200]

Each job runs in one process, then in slices 0 and 1 of 2 as two processes at once, as in a Slurm array; the same again
in the other order, so that a machine that slows down does not decide. Prints the ratio of times: 2 would be perfect,
and less remains where a process uses more than half of the machine by itself. The payloads must be the same bytes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from photoz.artifacts import Ref, load, open_store


def photoz_job(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def seconds(job: list[str], name: str, slices: int) -> float:
    """Seconds until all slices of a job have ended."""
    started = time.monotonic()
    running = [photoz_job(*job, "--name", name, "--task", str(task), "--tasks", str(slices)) for task in range(slices)]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"photoz-job {' '.join(job)} failed")
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--galaxies", type=int, default=1200)
    galaxies = parser.parse_args().galaxies
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
            "predictions": ["infer", "--model", "model/base", "--shards", "shards/base", "--split", "all"],
        }
        for kind, job in jobs.items():
            taken = {1: 0.0, 2: 0.0}
            for number, slices in enumerate((1, 2, 2, 1)):
                taken[slices] += seconds(job, f"run-{number}", slices)
            digests = {load(open_store(store), Ref(kind, f"run-{n}")).payload_sha256 for n in range(4)}
            assert len(digests) == 1, f"{kind}: slices gave other bytes"
            print(f"{job[0]}: {taken[1] / 2:.1f} s in one process, {taken[2] / 2:.1f} s in two slices, "
                  f"ratio {taken[1] / taken[2]:.2f}; load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
