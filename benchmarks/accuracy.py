"""How good the default network is on the embedded sky, for several seeds, beside the baselines and a control.

    python -m benchmarks.accuracy [--store FOLDER] [--seeds 3] [photoz-job train's flags]

Runs the jobs as a user would and prints a Markdown table from their metrics.json. Started again, it goes on.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from photoz.artifacts import Ref, load, open_store

PHOTOZ_JOB = [sys.executable, "-m", "jobs"]
NAME = "accuracy"
COLUMNS = ("sigma_mad", "bias", "outlier_fraction_0.05", "r2")


def photoz_job(*arguments: str) -> dict[str, Any]:
    """Run one job, its log on this terminal; returns its line of JSON."""
    print(f"$ photoz-job {' '.join(arguments)}", file=sys.stderr, flush=True)
    done = subprocess.run([*PHOTOZ_JOB, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def trained(store: str, name: str, flags: list[str]) -> tuple[dict[str, Any], float]:
    """(metrics.json, seconds of training) of one training on the shared shards, tested on the same galaxies."""
    line = photoz_job("train", "--store", store, "--shards", f"shards/{NAME}", "--name", name, *flags)
    photoz_job("infer", "--store", store, "--shards", f"shards/{NAME}", "--model", f"model/{name}", "--name", name)
    photoz_job("evaluate", "--store", store, "--name", name)
    report = load(open_store(store), Ref("report", name))
    metrics: dict[str, Any] = json.loads(report.read("metrics.json"))
    return metrics, float(line["seconds"])


def cells(scores: dict[str, Any]) -> list[str]:
    """One row of the table: value and bootstrap error of each metric."""
    found = {**scores["rail"], **scores["cnn"], **scores["general"]}
    return [f"{found[name]['value']:.4f} ± {found[name]['error']:.4f}" for name in COLUMNS]


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="./photoz-store")
    parser.add_argument("--seeds", type=int, default=3)
    options, flags = parser.parse_known_args()
    store = str(Path(options.store).absolute()) if "://" not in options.store else options.store
    photoz_job("catalog", "--store", store, "--survey", "embedded", "--name", NAME)
    photoz_job("shard", "--store", store, "--name", NAME)
    runs = {seed: trained(store, f"{NAME}-seed-{seed}", ["--seed", str(seed), *flags]) for seed in range(options.seeds)}
    control, _ = trained(store, f"{NAME}-shuffled", ["--shuffle-labels", *flags])

    print(f"\n| on {runs[0][0]['galaxies']['scored']} test galaxies | {' | '.join(COLUMNS)} |")
    print("|---|" + "---|" * len(COLUMNS))
    for seed, (metrics, seconds) in runs.items():
        print(f"| network, seed {seed} ({seconds:.0f} s) | {' | '.join(cells(metrics['scores']['network']))} |")
    baselines = runs[0][0]["scores"]["baselines"].values()
    for scores in sorted(baselines, key=lambda scores: scores["cnn"]["sigma_mad"]["value"]):
        print(f"| {scores['label']} | {' | '.join(cells(scores))} |")
    print(f"| control: network trained on shuffled redshifts | {' | '.join(cells(control['scores']['network']))} |")

    mads = [metrics["scores"]["network"]["cnn"]["sigma_mad"]["value"] for metrics, _ in runs.values()]
    mark = runs[0][0]["scores"]["baselines"]["trees_gri"]["cnn"]["sigma_mad"]["value"]
    mean, spread = statistics.mean(mads), statistics.stdev(mads) if len(mads) > 1 else 0.0
    beside = f"{mean / mark:.2f} x that of trees on g, r, i"
    print(f"\nsigma_mad over {len(mads)} seeds: mean {mean:.4f}, spread {spread:.4f}; {beside}")


if __name__ == "__main__":
    main()
