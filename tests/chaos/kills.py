"""Jobs killed with SIGKILL at every step between the first write and the commit, and at random moments."""

import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from photoz.artifacts import Store
from tests.chaos.bench import Job, check_and_remove
from tests.chaos.children import HALF_WAY, MOMENTS, Crash, Ended, run_child
from tests.chaos.tally import Tally

RANDOM = "at a random moment"


@dataclass(frozen=True)
class Trial:
    """One job that is to be killed at a point, on one store."""

    job: Job
    store: Store
    digest: str
    point: str
    crash: Crash | None = None
    kill_after_s: float | None = None


def points(writes: list[str]) -> Iterator[tuple[str, Crash]]:
    """(name, where) of every crash point of a job that makes these writes."""
    for step, what in enumerate(writes):
        for moment in MOMENTS:
            if moment != HALF_WAY or not what.startswith("removal"):  # there is no half of a removal
                yield f"{moment} the {what}", Crash(step, moment)


def plan_kills(
    places: list[tuple[Job, Store]], digests: dict[str, str], folder: Path, wanted: int, dice: random.Random
) -> list[Trial]:
    """Every crash point of every job on every store, then moments drawn at random, as many as wanted in all.

    Where fewer are wanted than there are points, a sample of them.
    """
    trials: list[Trial] = []
    lasting: list[tuple[Job, Store, float]] = []
    for job, store in places:
        whole = run_child(job.arguments(store.url, "whole"), folder)
        assert whole.code == 0, whole.err
        check_and_remove(store, job.kind, "whole", digests[job.kind])
        trials += [Trial(job, store, digests[job.kind], point, crash) for point, crash in points(whole.writes)]
        lasting.append((job, store, whole.seconds))
    while len(trials) < wanted:
        job, store, seconds = dice.choice(lasting)
        trials.append(Trial(job, store, digests[job.kind], RANDOM, kill_after_s=dice.uniform(0.0, seconds)))
    dice.shuffle(trials)
    return trials[:wanted]


def try_kills(trials: list[Trial], folder: Path, tally: Tally, until: float) -> None:
    """Kill, start again, and compare; every kill is counted. No new one is begun after `until` (time.monotonic)."""
    for number, trial in enumerate(trials):
        if time.monotonic() > until:
            return
        if number % 25 == 24:
            print(f"{folder.name}: {number + 1} of {len(trials)} kills", file=sys.stderr, flush=True)
        name = f"{folder.name}-{number}"
        ended = run_child(
            trial.job.arguments(trial.store.url, name), folder, crash=trial.crash, kill_after_s=trial.kill_after_s
        )
        row = tally.row("kill", trial.job.command[0], trial.point)
        if ended.code != -9:
            _expect(ended, 0)  # done before its moment came: no kill, and nothing to count
        else:
            row.tried += 1
            again = run_child(trial.job.arguments(trial.store.url, name), folder)
            _expect(again, 0)
        try:
            check_and_remove(trial.store, trial.job.kind, name, trial.digest)
        except AssertionError as lost:
            row.lost += 1
            tally.complaints.append(f"{trial.job.command[0]} {trial.point}: {lost}")
        else:
            row.survived += ended.code == -9


def _expect(ended: Ended, code: int) -> None:
    assert ended.code == code, f"exit code {ended.code}, expected {code}: {ended.err[-2000:]}"
