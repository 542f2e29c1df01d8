"""Seconds and peak memory of evaluate, beside those of its inputs' size.

    python -m benchmarks.evaluating [--galaxies 1000000] [--trained-on 200000]

The galaxies are real SDSS rows, repeated with noise; shards of 4,000 share the same few cutouts, so that only their
number is large. Predictions are noisy PDFs of 150 bins.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARD_ROWS = 4_000


def make_chain(store: str, tested: int, trained_on: int) -> None:
    """Write catalogue, shards, model and predictions of so many galaxies."""
    import numpy as np
    import pandas as pd

    from photoz.artifacts import open_store
    from tests.evaluate_chain import SIZE, history, parquet, predicted, sdss_rows, shard_files, write_artifact

    rng = np.random.default_rng(0)
    real = sdss_rows()
    rows = real.iloc[rng.integers(0, len(real), tested + trained_on)].reset_index(drop=True)
    for name in [name for name in rows if name.startswith("mag_")]:
        rows[name] += rng.normal(0, 0.03, len(rows))
    rows["object_id"] = [f"embedded/{number}" for number in range(len(rows))]
    rows["split"] = np.where(np.arange(len(rows)) < tested, "test", "train")
    opened = open_store(store)
    facts = {"survey": "embedded", "simulated": True}
    catalog = write_artifact(
        opened,
        "catalog",
        "t",
        {"catalog.parquet": parquet(rows)},
        {**facts, "rows": len(rows), "attrition": []},
        {},
        [],
    )
    some = shard_files(rows.head(SHARD_ROWS).assign(split="some"))
    tar, index = some["some-000000.tar"], pd.read_parquet(io.BytesIO(some["some-000000.index.parquet"]))
    where = index[["key", "offset", "length", "json_offset", "json_length"]]
    shards, predictions = {}, {}
    for split, part in rows.groupby("split"):
        for number, start in enumerate(range(0, len(part), SHARD_ROWS)):
            few = part.iloc[start : start + SHARD_ROWS].reset_index(drop=True)
            name = f"{split}-{number:06d}"
            shards[f"{name}.tar"] = tar
            shards[f"{name}.index.parquet"] = parquet(pd.concat([where.head(len(few)), few], axis=1))
            if split == "test":
                predictions[f"{name}.parquet"] = parquet(predicted(few, seed=number))
    image = {
        "format": "jpg", "channels": 3, "height": SIZE, "width": SIZE, "dtype": "uint8", "source": "jpeg",
        "bands": ["i", "r", "g"], "scale_arcsec_per_px": 0.396,
    }  # fmt: skip
    cut = write_artifact(opened, "shards", "t", shards, {**facts, "image": image, "samples": len(rows)}, {}, [catalog])
    model = write_artifact(
        opened, "model", "t", {"history.parquet": parquet(history())}, {"best_epoch": 9}, {"model": "menko2024"}, [cut]
    )
    write_artifact(opened, "predictions", "t", predictions, {"galaxies": tested}, {"split": "test"}, [model, cut])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--galaxies", type=int, default=1_000_000)
    parser.add_argument("--trained-on", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="photoz-evaluating-") as folder:
        store = str(Path(folder) / "store")
        # In a process of its own: Linux counts the memory of the process that starts another as its own.
        sizes = f"{options.galaxies}, {options.trained_on}"
        making = f"from benchmarks.evaluating import make_chain; make_chain({store!r}, {sizes})"
        subprocess.run([sys.executable, "-c", making], check=True)
        started = time.monotonic()
        command = [sys.executable, "-m", "jobs", "evaluate", "--store", store, "--predictions", "predictions/t"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit("photoz-job evaluate failed")
        seconds = time.monotonic() - started
    print(f"{time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f}, {len(os.sched_getaffinity(0))} cores")
    print(
        f"{options.galaxies:,} predictions, {options.trained_on:,} galaxies trained on: {seconds:.0f} s of "
        f"{used.ru_utime + used.ru_stime:.0f} s CPU, {used.ru_maxrss * 1024 / 1e9:.2f} GB at the peak"
    )


if __name__ == "__main__":
    main()
