"""python -m tests.chaos: kill jobs, break their services, count, and write the table of docs/reliability.md."""

import argparse
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import boto3

from photoz.artifacts import Store, open_store
from photoz.artifacts.probe import ensure_conditional_create
from tests.chaos.bench import copy_store, make_base, running_sky, the_jobs
from tests.chaos.faults import SKY_RATES, Ground, try_outages, try_passing_faults
from tests.chaos.kills import Trial, plan_kills, try_kills
from tests.chaos.table import write_tables
from tests.chaos.tally import Tally
from tests.seaweedfs import ACCESS_KEY, SECRET_KEY, running_seaweedfs

BUCKET = "chaos"
FEW = 100


def main() -> int:
    """Run the experiments; exit code 1 if anything was lost or went otherwise than promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=540, help="SIGKILLs; fewer than all crash points: a sample")
    parser.add_argument("--faults", type=int, default=1000, help="faulty replies in whole chains")
    parser.add_argument("--outages", type=int, default=54, help="jobs that meet a fault which stays")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=120.0, help="begin nothing new after so long")
    parser.add_argument("--write", type=Path, help="document whose table is to be renewed")
    options = parser.parse_args()
    started = time.monotonic()
    amounts = Amounts(options.kills, options.faults, options.outages, started + 60 * options.minutes)
    tally = run(amounts, options.seed, options.workers)
    for complaint in tally.complaints:
        print(f"LOST OR BROKEN: {complaint}", file=sys.stderr)
    for experiment in ("kill", "passing fault", "lasting fault"):
        tried, survived, lost = (tally.total(experiment, column) for column in ("tried", "survived", "lost"))
        print(f"{experiment}: {tried} tried, {survived} survived, data lost {lost}")
    if options.write:
        write_tables(tally, options.write, options.seed, time.monotonic() - started)
    return 1 if tally.complaints else 0


@dataclass(frozen=True)
class Amounts:
    """How much of what is to be tried, and when nothing new is begun any more (time.monotonic)."""

    kills: int
    faults: int
    outages: int
    until: float


def run(amounts: Amounts, seed: int, workers: int) -> Tally:
    """All experiments, shared among forked workers."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="photoz-chaos-") as name:
        folder = Path(name)
        (folder / "s3").mkdir()
        with running_seaweedfs(folder / "s3") as endpoint, running_sky() as sky, running_sky(SKY_RATES) as faulty_sky:
            stores = [open_store(str(folder / "store")), _bucket(endpoint, folder)]
            jobs = the_jobs(sky)
            digests = make_base(stores[0], jobs, folder)
            copy_store(stores[0], stores[1])
            for store in stores:
                ensure_conditional_create(store)  # else the first job's writes would not be like the others'
            # For a few kills, each job on one of the stores: looking for crash points takes time too.
            everywhere = [(job, store) for job in jobs for store in stores]
            places = everywhere if amounts.kills > FEW else [(job, dice.choice(stores)) for job in jobs]
            trials = plan_kills(places, digests, folder)
            dice.shuffle(trials)
            print(f"{len(trials)} crash points", file=sys.stderr, flush=True)
            ground = Ground(endpoint, stores[1], sky, faulty_sky, jobs, digests, folder)
            return _share(workers, trials, ground, amounts, seed)


def _bucket(endpoint: str, folder: Path) -> Store:
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PHOTOZ_CACHE": str(folder / "cache"),
    }
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    return open_store(f"s3://{BUCKET}/photoz")


def _share(workers: int, trials: list[Trial], ground: Ground, amounts: Amounts, seed: int) -> Tally:
    children = {}
    for number in range(workers):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _work(number, workers, trials, ground, amounts, seed)
                code = 0
            finally:
                os._exit(code)
        children[child] = number
    tally = Tally()
    for child, number in children.items():
        _, status = os.waitpid(child, 0)
        assert status == 0, f"worker {number} failed"
        tally.add(Tally.load(ground.folder / f"tally-{number}.json"))
    return tally


def _work(number: int, workers: int, trials: list[Trial], ground: Ground, amounts: Amounts, seed: int) -> None:
    """One worker's share, in a folder of its own; the outages are the last worker's."""
    own = ground.folder / f"w{number}"
    own.mkdir()
    tally = Tally()
    # Connections of one's own: two processes that read from one socket get each other's replies.
    ground = replace(ground, folder=own, store=open_store(ground.store.url))
    trials = [replace(trial, store=open_store(trial.store.url)) for trial in trials[number::workers]]
    try:
        if number == workers - 1:
            try_outages(ground, amounts.outages, seed, tally)
            print(f"{own.name}: outages done", file=sys.stderr, flush=True)
        try_passing_faults(ground, amounts.faults // workers, seed + 1000 * number, tally, amounts.until)
        print(f"{own.name}: faults done", file=sys.stderr, flush=True)
        dice = random.Random(seed + number)
        try_kills(trials, amounts.kills // workers, own, tally, dice, amounts.until)
    except AssertionError as error:
        tally.complaints.append(f"worker {number} stopped: {error}")
    tally.save(own.parent / f"tally-{number}.json")


if __name__ == "__main__":
    sys.exit(main())
