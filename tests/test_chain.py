"""The whole chain as a person runs it: photoz-job in processes of its own, on the embedded sky."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from photoz.artifacts import KINDS, Ref, Store, load, open_store, upkeep

pytestmark = pytest.mark.real

SMALL = [
    "--survey",
    "embedded",
    "--limit",
    "240",
    "--epochs",
    "2",
    "--train-batch-size",
    "32",
    "--samples-per-shard",
    "40",
]
PHOTOZ_JOB = [sys.executable, "-m", "jobs"]


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> dict[str, Any]:
        """The one line of JSON on stdout."""
        (line,) = self.out.splitlines()
        document: dict[str, Any] = json.loads(line)
        return document


def photoz_job(*arguments: str, **environment: str) -> Finished:
    done = subprocess.run(
        [*PHOTOZ_JOB, *arguments], capture_output=True, text=True, env=os.environ | environment, timeout=500
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def payloads(store: Store, name: str) -> dict[str, str]:
    return {kind: load(store, Ref(kind, name)).payload_sha256 for kind in KINDS}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the small chain has run once, undisturbed, as `whole`."""
    store = tmp_path_factory.mktemp("chain") / "store"
    done = photoz_job("run", *SMALL, "--name", "whole", "--store", str(store))
    assert done.code == 0, done.err
    assert done.line["status"] == "created"
    assert done.line["artifacts"] == [f"{kind}/whole@v1" for kind in KINDS]
    assert Path(done.line["report"]).read_text().startswith("<!DOCTYPE html>")
    return open_store(str(store))


def test_every_byte_of_the_chain_is_as_its_manifest_says(chain: Store) -> None:
    for kind in KINDS:
        assert upkeep.verify(load(chain, Ref(kind, "whole"))) > 0


def test_no_galaxy_is_lost_between_jobs(chain: Store) -> None:
    catalogue, shards = load(chain, Ref("catalog", "whole")), load(chain, Ref("shards", "whole"))
    galaxies = catalogue.table("catalog.parquet").to_pydict()
    failures = shards.table("failures.parquet").num_rows
    samples = [
        object_id
        for name in shards.names("*.index.parquet")
        for object_id in shards.table(name, ["object_id"])["object_id"].to_pylist()
    ]
    assert len(samples) + failures == len(galaxies["object_id"]) == 240
    assert set(samples) <= set(galaxies["object_id"])
    predictions = load(chain, Ref("predictions", "whole"))
    predicted = [
        object_id
        for name in predictions.names("*.parquet")
        for object_id in predictions.table(name, ["object_id"])["object_id"].to_pylist()
    ]
    in_test = [i for i, split in zip(galaxies["object_id"], galaxies["split"], strict=True) if split == "test"]
    assert sorted(predicted) == sorted(set(in_test) & set(samples))


def test_the_whole_chain_again_is_done_already(chain: Store) -> None:
    done = photoz_job("run", *SMALL, "--name", "whole", "--store", chain.url)
    assert (done.code, done.line["status"]) == (0, "exists")
    assert done.line["artifacts"] == [f"{kind}/whole@v1" for kind in KINDS]


def test_forced_again_each_job_makes_the_next_version_of_the_same_bytes(chain: Store) -> None:
    store = f"{chain.url}-forced"
    tiny = ["--survey", "embedded", "--limit", "60", "--epochs", "1", "--name", "x", "--store", store]
    assert photoz_job("run", *tiny).code == 0
    first = payloads(open_store(store), "x")
    done = photoz_job("run", *tiny, "--force")
    assert done.code == 0, done.err
    assert done.line["artifacts"] == [f"{kind}/x@v2" for kind in KINDS]
    second = payloads(open_store(store), "x")
    # The report prints the versions that it is about, so only its bytes differ.
    assert {kind for kind in KINDS if first[kind] != second[kind]} == {"report"}


def test_five_jobs_one_by_one_in_slices_give_what_run_gives(chain: Store) -> None:
    common = ["--name", "sliced", "--store", chain.url]
    cut = ["catalog", *SMALL[:4], *common]
    steps = [
        *[[*cut, "--task", str(i), "--tasks", "2"] for i in (1, 0)],
        *[["shard", "--samples-per-shard", "40", *common, "--task", str(i), "--tasks", "3"] for i in (0, 2, 1)],
        ["train", "--epochs", "2", "--batch-size", "32", *common],
        *[["infer", "--batch-size", "32", *common, "--task", str(i), "--tasks", "2"] for i in (0, 1)],
        ["evaluate", *common],
    ]
    statuses = []
    for step in steps:
        done = photoz_job(*step)
        assert done.code == 0, done.err
        statuses.append(done.line["status"])
    assert statuses == [
        "partial",
        "created",
        "partial",
        "partial",
        "created",
        "created",
        "partial",
        "created",
        "created",
    ]
    whole = payloads(chain, "whole")
    sliced = payloads(chain, "sliced")
    # The report prints the names of its inputs, which are others here.
    assert {kind for kind in KINDS if whole[kind] != sliced[kind]} == {"report"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments_and_started_again_it_ends_with_the_same_bytes(chain: Store, seed: int) -> None:
    when = random.Random(seed)
    store = f"{chain.url}-killed-{seed}"
    command = [*PHOTOZ_JOB, "run", *SMALL, "--name", "whole", "--store", store]
    kills = 0
    for _ in range(5):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(when.uniform(3.0, 14.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills > 0, "every attempt finished before its kill: nothing was tried"
    done = photoz_job("run", *SMALL, "--name", "whole", "--store", store)
    assert done.code == 0, done.err
    assert payloads(open_store(store), "whole") == payloads(chain, "whole")
    assert all(load(open_store(store), Ref(kind, "whole")).ref.version == 1 for kind in KINDS)


def test_sigterm_ends_a_run_with_85_and_the_same_command_goes_on(chain: Store) -> None:
    store = f"{chain.url}-stopped"
    command = [*PHOTOZ_JOB, "run", *SMALL, "--name", "whole", "--store", store]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    folder = Path(store) / "shards" / "whole" / "data"
    while not list(folder.glob("*/parts/pieces/*.json")):
        assert time.monotonic() < deadline and process.poll() is None, "no shard was ever finished"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 85, err
    assert out == ""
    assert err.splitlines()[-1].startswith("photoz-job: error: stopped by SIGTERM")
    done = photoz_job("run", *SMALL, "--name", "whole", "--store", store)
    assert done.code == 0, done.err
    assert payloads(open_store(store), "whole") == payloads(chain, "whole")


def test_the_chain_runs_on_a_real_s3_server(chain: Store, s3_url: str) -> None:
    done = photoz_job("run", *SMALL, "--name", "whole", "--store", s3_url)
    assert done.code == 0, done.err
    assert done.line["report"].startswith(f"{s3_url}/report/whole/data/")
    assert payloads(open_store(s3_url), "whole") == payloads(chain, "whole")
    assert "testsecret" not in done.err


def test_json_log_lines_are_json(chain: Store) -> None:
    done = photoz_job("catalog", *SMALL[:4], "--name", "json", "--store", chain.url, PHOTOZ_LOG_FORMAT="json")
    assert done.code == 0
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert lines and all({"time", "level", "logger", "message"} <= line.keys() for line in lines)


def test_a_tables_galaxies_get_images_of_a_survey(chain: Store, tmp_path: Path) -> None:
    rows = load(chain, Ref("catalog", "whole")).table("catalog.parquet")
    table = tmp_path / "mine.parquet"
    pq.write_table(rows.select(["object_id", "ra", "dec", "z_spec", "ebv"]), table)
    cut = ["--survey", "table", "--table", str(table), "--images", "jpeg", "--images-survey", "embedded"]
    done = photoz_job("run", *cut, "--epochs", "1", "--name", "mine", "--store", chain.url)
    assert done.code == 0, done.err
    shards = load(chain, Ref("shards", "mine")).summary
    assert (shards["samples"], shards["survey"], shards["images_from"]) == (240, "table", "embedded")
    assert shards["simulated"]
