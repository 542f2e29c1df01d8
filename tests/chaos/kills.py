"""Jobs killed with SIGKILL at every step between the first write and the commit, and at random moments."""

import itertools
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
_MORE_KILLS = 2  # of the same job, each on the way that was left
_EARLY_STEPS = 6  # a job that goes on makes fewer writes
_AT_RANDOM = 0.3


@dataclass(frozen=True)
class Trial:
    """One job that is to be killed at a crash point, on one store; of several of that name, at one of the steps."""

    job: Job
    store: Store
    digest: str
    point: str
    crashes: tuple[Crash, ...]


def points(writes: list[str]) -> Iterator[tuple[str, Crash]]:
    """(name, where) of every crash point of a job that makes these writes."""
    for step, what in enumerate(writes):
        for moment in MOMENTS:
            if moment != HALF_WAY or not what.startswith("removal"):  # there is no half of a removal
                yield f"{moment} the {what}", Crash(step, moment)


def plan_kills(places: list[tuple[Job, Store]], digests: dict[str, str], folder: Path) -> list[Trial]:
    """Every crash point, by name, of every job on every store."""
    trials: list[Trial] = []
    for job, store in places:
        whole = run_child(job.arguments(store.url, "whole"), folder)
        assert whole.code == 0, whole.err
        check_and_remove(store, job.kind, "whole", digests[job.kind])
        named: dict[str, list[Crash]] = {}
        for point, crash in points(whole.writes):
            named.setdefault(point, []).append(crash)
        trials += [Trial(job, store, digests[job.kind], point, tuple(crashes)) for point, crashes in named.items()]
    return trials


def try_kills(trials: list[Trial], wanted: int, folder: Path, tally: Tally, dice: random.Random, until: float) -> None:
    """Go through the trials, over and over, until as many kills as wanted are done; every kill is counted.

    No new trial is begun after `until` (time.monotonic).
    """
    for number, trial in enumerate(itertools.cycle(trials)):
        done = tally.total("kill", "tried")
        if time.monotonic() > until or done >= wanted:
            return
        if number % 20 == 19:
            print(f"{folder.name}: {done} of {wanted} kills", file=sys.stderr, flush=True)
        _try_one(trial, f"{folder.name}-{number}", folder, tally, dice)


def _try_one(trial: Trial, name: str, folder: Path, tally: Tally, dice: random.Random) -> None:
    """Kill at the trial's point, then on the way of the next attempts, then let it end, and compare."""
    job, arguments = trial.job.command[0], trial.job.arguments(trial.store.url, name)
    ended = run_child(arguments, folder, crash=dice.choice(trial.crashes))
    assert ended.code == -9, f"{job}: the crash point {trial.point!r} was not hit: {ended.err[-2000:]}"
    rows = [tally.row("kill", job, trial.point)]
    for _ in range(_MORE_KILLS):
        if dice.random() < _AT_RANDOM:
            point, ended = RANDOM, run_child(arguments, folder, kill_after_s=dice.uniform(0.0, ended.seconds))
        else:
            crash = Crash(dice.randrange(_EARLY_STEPS), dice.choice(MOMENTS))
            ended = run_child(arguments, folder, crash=crash)
            point = f"{crash.moment} the {ended.writes[-1] if ended.writes else 'first write'}"
        if ended.code != -9:
            break  # it was done before its moment came
        rows.append(tally.row("kill", job, point))
    if ended.code == -9:
        ended = run_child(arguments, folder)
    for row in rows:
        row.tried += 1
    try:
        _expect(ended, 0)
        check_and_remove(trial.store, trial.job.kind, name, trial.digest)
    except AssertionError as lost:
        for row in rows:
            row.lost += 1
        tally.complaints.append(f"{job}, killed {', '.join(row.what for row in rows)}: {lost}")
    else:
        for row in rows:
            row.survived += 1


def _expect(ended: Ended, code: int) -> None:
    assert ended.code == code, f"exit code {ended.code}, expected {code}: {ended.err[-2000:]}"
