"""The protocol of many writers: every order of steps of a small model, and drawn orders of the real code."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from photoz.artifacts import Artifact, Outcome, Ref, Store, load, open_store, upkeep
from photoz.artifacts.artifact import versions
from photoz.artifacts.garbage import delete_garbage, garbage
from photoz.artifacts.probe import ensure_conditional_create
from photoz.errors import MissingArtifact, TryAgain
from photoz.runtime import TaskSlice
from tests import slices_model
from tests.protocol_model import Process, Rules, explore
from tests.sample_job import PIECES, write
from tests.stepped_store import Stepped

WRITE = Process("write", "f", "bytes")
OTHERWISE = Process("write", "f", "other bytes")  # the same fingerprint made on other hardware
ANOTHER = Process("write", "g", "bytes")
REMOVE = Process("rm", "f")
SWEEP = Process("sweep", "f")

CASES = {
    "two twins and another job": [WRITE, WRITE, ANOTHER],
    "twins that make other bytes": [WRITE, OTHERWISE, WRITE],
    "a twin beside a removal": [WRITE, OTHERWISE, REMOVE],
    "two removals": [WRITE, REMOVE, REMOVE],
    "a removal that died": [WRITE, REMOVE, SWEEP, WRITE],
    "two jobs and a removal": [WRITE, ANOTHER, REMOVE],
}


@pytest.mark.parametrize("case", CASES)
def test_in_no_order_of_steps_and_deaths_is_a_promise_broken(case: str) -> None:
    states, wrong = explore(CASES[case], Rules())
    assert wrong is None
    assert states > 500


@pytest.mark.parametrize("rule_name", [rule.name for rule in fields(Rules)])
def test_each_rule_is_needed_and_the_model_tells(rule_name: str) -> None:
    bent = replace(Rules(), **{rule_name: False})
    assert any(explore(processes, bent)[1] for processes in CASES.values())


SLICES = [slices_model.Process(index) for index in range(slices_model.COUNT)]
SLICES_BEGIN = {
    "two that are last at once": (slices_model.done(0, 2), [SLICES[1], SLICES[3]]),
    "two that are last in one group, and one that is run again": (slices_model.done(2, 3), SLICES[:3]),
    "a slice that is started twice": (slices_model.done(0, 1, 2), [SLICES[3], SLICES[3]]),
    "receipts without marks, in every group": (slices_model.receipts(0, 2), [SLICES[1], SLICES[3]]),
    "receipts without marks, of a whole group": (slices_model.receipts(2, 3), SLICES[:2]),
    "a removal that fails": (slices_model.done(0, 1, 2), [slices_model.Process(-1, most=1), SLICES[3]]),
    "a removal that fails late": (slices_model.done(0, 1, 2), [slices_model.Process(-1, most=3), *SLICES[2:]]),
}


@pytest.mark.parametrize("begin", SLICES_BEGIN)
def test_in_no_order_of_requests_and_deaths_do_slices_miss_that_all_are_done(begin: str) -> None:
    states, wrong = slices_model.explore(*SLICES_BEGIN[begin], slices_model.Rules())
    assert wrong is None
    assert states > 100


@pytest.mark.parametrize("rule_name", [rule.name for rule in fields(slices_model.Rules)])
def test_each_rule_of_slices_is_needed_and_the_model_tells(rule_name: str) -> None:
    bent = replace(slices_model.Rules(), **{rule_name: False})
    assert any(slices_model.explore(*begin, bent)[1] for begin in SLICES_BEGIN.values())


REF = Ref("shards", "x")


def published(store: Store) -> list[Artifact]:
    return [load(store, REF.at(version)) for version in versions(store, REF)[0]]


def check_promises(store: Store) -> None:
    """Numbers without gaps, one version a fingerprint, every byte as its manifest says, `latest` readable."""
    there, removed = versions(store, REF)
    assert sorted({*there, *removed}) == list(range(1, len({*there, *removed}) + 1))
    artifacts = published(store)
    assert len({artifact.manifest.fingerprint for artifact in artifacts}) == len(artifacts)
    for artifact in artifacts:
        upkeep.verify(artifact)
    if there:
        assert load(store, REF).ref.version == there[-1]


def remove_latest(store: Store) -> object:
    return upkeep.remove(load(store, REF))


class Writers(RuleBasedStateMachine):
    """Jobs and removals on one name, each stepping request by request in a drawn order, some killed on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="photoz-writers-"))
        self.store = open_store(str(self.folder / "store"))
        ensure_conditional_create(self.store)  # its racing threads are no steps of a job
        self.processes: list[Stepped] = []
        self.jobs: list[partial[Outcome]] = []

    @rule(
        seed=st.integers(0, 1),
        salt=st.sampled_from([b"", b"!"]),
        task=st.sampled_from([(0, 1), (0, 1), (0, 2), (1, 2)]),
    )
    def start_job(self, seed: int, salt: bytes, task: tuple[int, int]) -> None:
        job = partial(write, settings={"seed": seed}, salt=salt, task=TaskSlice(*task), pieces=PIECES[:2])
        self.jobs.append(job)
        self.processes.append(Stepped(self.store, job))

    @rule()
    def start_removal(self) -> None:
        self.processes.append(Stepped(self.store, remove_latest))

    @rule(which=st.integers(0, 30), steps=st.integers(1, 25))
    def step(self, which: int, steps: int) -> None:
        for process in self.processes and [self.processes[which % len(self.processes)]]:
            for _ in range(steps):
                process.step()

    @rule(which=st.integers(0, 30))
    def kill(self, which: int) -> None:
        for process in self.processes and [self.processes[which % len(self.processes)]]:
            process.kill()

    @invariant()
    def promises_hold(self) -> None:
        check_promises(self.store)

    def teardown(self) -> None:
        try:
            for process in self.processes:
                process.finish()
            check_promises(self.store)
            for process in self.processes:
                # Refused while a removal is under way, or after one that died had begun: to be said, not to be hidden.
                assert process.error is None or isinstance(process.error, TryAgain | MissingArtifact), process.error
            self._start_everything_again()
        finally:
            shutil.rmtree(self.folder)

    def _start_everything_again(self) -> None:
        delete_garbage(self.store, garbage(self.store, older_than_s=-5), older_than_s=-5)
        check_promises(self.store)
        outcomes = [job(self.store, task=TaskSlice()) for job in self.jobs]
        assert all(outcome.status in ("created", "exists") for outcome in outcomes)
        check_promises(self.store)
        assert len(published(self.store)) == len({outcome.artifact for outcome in outcomes}) or not outcomes


TestWriters = Writers.TestCase
TestWriters.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


@pytest.mark.real
def test_32_processes_at_once_publish_each_fingerprint_once_and_in_full(store: Store, tmp_path: Path) -> None:
    # Eight jobs, each started four times over: twice whole by mistake, and twice as the two slices of an array.
    starts = [(seed, task) for seed in range(8) for task in ("0/1", "0/1", "0/2", "1/2")]
    gun = tmp_path / "gun"
    command = [sys.executable, "-W", "error", "-m", "tests.sample_job", store.url]
    racers = [
        subprocess.Popen(
            [*command, json.dumps({"seed": seed}), task, str(gun)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, task in starts
    ]
    for racer in racers:
        assert racer.stdout and racer.stdout.readline() == "ready\n"
    gun.touch()
    ends = [racer.communicate(timeout=300) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 32, [err for _, err in ends if err]
    outcomes = [json.loads(out) for out, _ in ends]
    check_promises(store)
    assert [artifact.ref.version for artifact in published(store)] == list(range(1, 9))
    created = Counter(outcome["artifact"] for outcome in outcomes if outcome["status"] == "created")
    assert created == {f"shards/x@v{version}": 1 for version in range(1, 9)}
    for seed in range(8):
        mine = {outcome["artifact"] for outcome, (its, _) in zip(outcomes, starts, strict=True) if its == seed}
        assert len(mine - {"shards/x"}) == 1, "twins must end with the same version"
