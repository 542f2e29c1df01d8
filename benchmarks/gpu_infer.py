"""The infer job on a GPU, from processes of its own. For benchmarks.gpu.

Not from that one: the processes that decode import what the main module of whoever started them imports.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.computing import jpeg_shards
from benchmarks.ratios import Row
from photoz.artifacts import Destination, Ref, load, open_store
from photoz.data import open_shards, shard_set
from photoz.data.locations import MOST_THREADS
from photoz.data.workers import usual_workers
from photoz.infer import InferSettings, infer_redshifts
from photoz.runtime import TaskSlice, usable_cores
from photoz.train import TrainSettings, train_model

MOST_ROUNDS = 3


def infer_rows(name: str, side_px: int, size: int, device: str, rounds: int) -> list[Row]:
    """Images a second of the whole infer job, shards of JPEGs to Parquet, on all cores; and of four slices at once."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="photoz-gpu-") as folder:
        shards = jpeg_shards(Path(folder) / "shards", 4 * size, side_px, max(size // 20, 5), 1000)
        quick = TrainSettings(model=name, epochs=1, device=device)  # type: ignore[arg-type]
        train_model(shards, quick, Destination(shards.store, name))
        ways = [("decoded in threads", 1, sys.maxsize), ("four slices at once, cores of its own for each", 4, None)]
        if usual_workers() > MOST_THREADS:
            ways.insert(1, ("decoded by processes", 1, 0))
        for words, slices, processes_from in ways:
            told = f"{shards.store.url!r}, {name!r}, {device!r}, {processes_from}, {slices}"
            rate = open_shards(shards).count("train") / seconds_of_jobs(told, slices, min(rounds, MOST_ROUNDS))
            title = f"infer job, {name} {side_px}x{side_px}x3, {usable_cores()} cores, {words}"
            rows.append((title, "", "", f"{rate:.0f}"))
    return rows


def seconds_of_jobs(told: str, slices: int, rounds: int) -> float:
    """Median seconds of an infer job in so many slices, from processes that have started and done one before."""
    works = [f"from benchmarks.gpu_infer import infer_as_told as do; do({told}, {i})" for i in range(slices)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen([sys.executable, "-c", work], **pipes) for work in works]  # type: ignore[call-overload]
    found = []
    try:
        for _ in range(rounds + 1):
            started = time.perf_counter()
            for job in jobs:
                job.stdin.write("again\n")
                job.stdin.flush()
            if any(job.stdout.readline() != "done\n" for job in jobs):
                raise RuntimeError("an infer job has failed: see above")
            found.append(time.perf_counter() - started)
    finally:
        for job in jobs:
            job.communicate()
    return statistics.median(found[1:])


def infer_as_told(url: str, name: str, device: str, processes_from: int | None, slices: int, index: int) -> None:
    """Do this slice of an infer job, on its share of the cores, for each line that comes in."""
    if processes_from is not None:
        shard_set.PROCESSES_FROM = processes_from
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[index::slices] or cores)
    store = open_store(url)
    model, shards = load(store, Ref("model", name)), load(store, Ref("shards", "made"))
    settings = InferSettings(split="train", device=device)  # type: ignore[arg-type]
    for number, _ in enumerate(sys.stdin):
        dest = Destination(store, f"{name}-{slices}-{processes_from}-{number}".lower(), TaskSlice(index, slices))
        infer_redshifts(model, shards, settings, dest)
        print("done", flush=True)
