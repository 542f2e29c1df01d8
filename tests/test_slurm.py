"""slurm/ on a real cluster of three hosts, with the store on a real S3 server behind the same bridge."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from photoz.artifacts import KINDS, Ref, Store, load, open_store
from photoz.errors import ExitCode
from tests.seaweedfs import ACCESS_KEY, SECRET_KEY, running_seaweedfs
from tests.slurm_cluster import HOSTS, Cluster, missing, running_slurm

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("slurm"),  # one cluster for all, where pytest runs with --dist loadgroup
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

ROOT = Path(__file__).parents[1]
STORE = "s3://photoz/slurm"
SKY = ("--survey", "embedded", "--limit", "240")
PACKED = ("--samples-per-shard", "40")
TRAINED = ("--epochs", "6", "--batch-size", "16")
PAIR = ("--nodes=2", "--gpus-per-node=2")
SLOWLY = ("--checkpoint-every", "0")  # a write to the store at each step: time to disturb the training


@dataclass(frozen=True)
class Site:
    """A cluster, and a folder as a user of it would have it: slurm/, filled in."""

    cluster: Cluster
    folder: Path

    def submit(self, job: str, *flags: str, options: tuple[str, ...] = ()) -> str:
        """Submit one of the scripts and return the job's id."""
        return self.cluster.run("sbatch", "--parsable", *options, f"slurm/{job}.sh", *flags, cwd=self.folder).strip()

    def submit_chain(self, **given: str) -> dict[str, str]:
        """Run slurm/submit.sh, with these variables in its environment, and return each job's id."""
        variables = [f"{name}={value}" for name, value in given.items()]
        printed = self.cluster.run("env", *variables, "slurm/submit.sh", cwd=self.folder)
        return dict(line.split() for line in printed.splitlines())

    def train(self, name: str, *flags: str, options: tuple[str, ...] = ()) -> str:
        """Submit a training on two hosts with two ranks each, on the shards of the chain."""
        shards = ("--shards", "shards/mgs", "--name", name)
        return self.submit("train", *shards, *flags, options=(*PAIR, *options))

    def log(self, job: str) -> str:
        """All that a job, or its array tasks, wrote."""
        return "\n".join(file.read_text() for file in sorted(self.folder.glob(f"logs/photoz-*-{job}*.log")))

    def ended(self, job: str) -> str:
        """Wait for a job; a failure shows its log."""
        state = self.cluster.finished(job)
        assert state == "COMPLETED", f"{state}\n{self.log(job)[-5000:]}"
        return self.log(job)

    def ranks(self) -> list[int]:
        """Processes that train, those of the second host last; torchrun starts them with -u."""
        return [process for host in HOSTS for process in self.cluster.processes(host, "-u")]

    def restarts(self, job: str) -> int:
        return int(self.cluster.job(job)["Restarts"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    weed = tmp_path_factory.mktemp("seaweedfs")
    with running_slurm() as cluster, running_seaweedfs(weed, cluster.address) as endpoint:
        boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        ).create_bucket(Bucket="photoz")  # fmt: skip
        keys = folder / "credentials"
        keys.write_text(f"[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n")
        keys.chmod(0o600)
        for name in ("slurm", "logs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.log"))
        settings = {
            "PHOTOZ_STORE": STORE,
            "PHOTOZ_CACHE": folder / "cache",
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_SHARED_CREDENTIALS_FILE": keys,
            "SITE_VENV": sys.prefix,
            "SITE_NODES": 2,
            "SITE_GPUS": 2,
            "SITE_CORES_PER_GPU": 4,
            "SITE_MEMORY_PER_GPU": 8,
            "PHOTOZ_DEVICE": "cpu",  # the GPUs are stand-ins
            "GLOO_SOCKET_IFNAME": "eth0",
            "PYTHONPATH": ROOT,
            "CATALOG_FLAGS": f"({' '.join(SKY)})",
            "SHARD_FLAGS": f"({' '.join(PACKED)})",
            "TRAIN_FLAGS": f"({' '.join(TRAINED)})",
            "PHOTOZ_RANK_TIMEOUT": "15s",
        }
        with (folder / "slurm/photoz.env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())
        yield Site(cluster, folder)


@pytest.fixture
def store(site: Site, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The cluster's store, as this process reads it."""
    for line in (site.folder / "slurm/photoz.env").read_text().splitlines():
        if line.startswith("AWS_"):
            monkeypatch.setenv(*line.split("=", 1))
    return open_store(STORE)


@pytest.fixture(scope="module")
def chain(site: Site) -> dict[str, str]:
    """The ids of a chain of jobs that has run to its end."""
    jobs = site.submit_chain()
    for job in jobs.values():
        site.ended(job)
    return jobs


@pytest.fixture
def unbroken(chain: dict[str, str], store: Store) -> str:
    """The digest of the model that nobody disturbed."""
    return load(store, Ref("model", "mgs")).payload_sha256


def soon(condition: Callable[[], bool], what: str, limit_s: float = 120) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s} s for {what}"
        time.sleep(0.2)


def checkpoints(store: Store, name: str) -> list[str]:
    return [item.key for item in store.list(f"model/{name}/") if "/state/training-" in item.key]


def warned(process: int) -> bool:
    """Whether a process that is held has a SIGUSR1 waiting for it."""
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("ShdPnd")]
    return bool(int(line.split()[1], 16) >> (signal.SIGUSR1 - 1) & 1)


def trains(site: Site, store: Store, name: str, job: str) -> None:
    """Wait until a training has saved its state."""
    soon(lambda: bool(checkpoints(store, name)), f"a checkpoint of {name}\n{site.log(job)}")


def test_the_chain_runs_from_catalogue_to_report(site: Site, chain: dict[str, str], store: Store) -> None:
    assert list(chain) == ["catalog", "shard", "train", "infer", "evaluate"]
    manifests = {kind: load(store, Ref(kind, "mgs")) for kind in KINDS}
    assert manifests["model"].settings["world"] == 4
    assert site.cluster.job(chain["train"])["NodeList"] == "n[1-2]"
    for array in ("shard", "infer"):
        tasks = site.cluster.run("squeue", "--noheader", "--array", "--states=all", "--jobs", chain[array])
        assert len(tasks.splitlines()) == 4
        assert site.log(chain[array]).count('"status": "partial"') == 3


def test_catalogue_and_shards_are_those_of_a_single_process(
    chain: dict[str, str], store: Store, tmp_path: Path
) -> None:
    alone = str(tmp_path / "store")
    for command in (["catalog", *SKY], ["shard", *PACKED]):
        subprocess.run(
            [sys.executable, "-m", "jobs", *command, "--store", alone], check=True, capture_output=True, timeout=300
        )
    for kind in ("catalog", "shards"):
        there, here = (load(place, Ref(kind, "mgs")) for place in (store, open_store(alone)))
        assert there.payload_sha256 == here.payload_sha256


def test_no_key_is_to_be_seen_in_slurm_or_in_a_log(
    site: Site, chain: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)  # as in the shell of a user who submits
    job = site.submit("evaluate", options=("--hold",))
    try:
        shown = site.cluster.run("scontrol", "show", "job", "--details", job)
        kept = [file for file in site.cluster.folder.rglob("*") if file.is_file()]
        assert any(file.name == "environment" for file in kept)
        texts = [file.read_bytes() for file in (*kept, *site.folder.glob("logs/*.log"))]
    finally:
        site.cluster.run("scancel", job)
    assert SECRET_KEY not in shown
    assert not [text for text in texts if SECRET_KEY.encode() in text]


def test_an_array_task_that_dies_is_redone_alone(site: Site, chain: dict[str, str], store: Store) -> None:
    job = site.submit("shard", "--catalog", "catalog/mgs", "--name", "dies")
    found: list[int] = []

    def second_task() -> bool:
        for host in HOSTS:
            for process in site.cluster.processes(host, "shard"):
                environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
                if b"SLURM_ARRAY_TASK_ID=2" in environment and b"SLURM_PROCID=0" in environment:
                    found.append(process)
        return bool(found)

    soon(second_task, "array task 2")
    os.kill(found[0], 9)
    log = site.ended(job)
    assert log.count("slurm: exit code 137; restart 1 of 2") == 1
    assert [site.restarts(f"{job}_{task}") for task in range(4)] == [0, 0, 1, 0]
    digests = {load(store, Ref("shards", name)).payload_sha256 for name in ("mgs", "dies")}
    assert len(digests) == 1


def test_bad_input_fails_once_and_takes_what_waits_for_it_along(site: Site) -> None:
    settings = site.folder / "slurm/photoz.env"
    before = settings.read_text()
    settings.write_text(f"{before}\nCATALOG_FLAGS=(--survey embedded --limit -5)\n")
    try:
        jobs = site.submit_chain()
        states = {name: site.cluster.finished(job) for name, job in jobs.items()}
    finally:
        settings.write_text(before)
    assert states.pop("catalog") == "FAILED"
    assert set(states.values()) == {"CANCELLED"}
    failed = site.cluster.job(jobs["catalog"])
    assert (failed["ExitCode"], failed["Restarts"]) == (f"{ExitCode.BAD_INPUT}:0", "0")
    assert site.log(jobs["catalog"]).count("photoz-job: error:") == 1


def test_training_without_its_shards_fails_once_on_all_hosts(site: Site) -> None:
    job = site.submit("train", "--shards", "shards/none", options=PAIR)
    assert site.cluster.finished(job) == "FAILED"
    failed = site.cluster.job(job)
    assert (failed["ExitCode"], failed["Restarts"]) == (f"{ExitCode.MISSING_ARTIFACT}:0", "0")


def test_a_preempted_training_goes_on_to_the_same_weights(site: Site, store: Store, unbroken: str) -> None:
    job = site.train("preempted", *SLOWLY)
    trains(site, store, "preempted", job)
    urgent = site.cluster.run(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap=true"
    ).strip()
    log = site.ended(job)
    assert site.cluster.finished(urgent) == "COMPLETED"
    assert "stopped by SIGUSR1" in log and "resumed in epoch" in log
    assert site.restarts(job) == 1
    assert load(store, Ref("model", "preempted")).payload_sha256 == unbroken


def test_a_training_one_of_whose_ranks_is_killed_goes_on_to_the_same_weights(
    site: Site, store: Store, unbroken: str
) -> None:
    job = site.train("killed", *SLOWLY)
    trains(site, store, "killed", job)
    os.kill(site.ranks()[-1], 9)
    log = site.ended(job)
    assert "resumed in epoch" in log
    assert site.restarts(job) == 1
    assert load(store, Ref("model", "killed")).payload_sha256 == unbroken


def test_a_training_at_its_time_limit_goes_on_to_the_same_weights(site: Site, store: Store, unbroken: str) -> None:
    job = site.train("timed-out", *SLOWLY, "--rank-timeout", "10m")
    trains(site, store, "timed-out", job)
    # Slurm looks at time limits twice a minute: the ranks are held until its warning has come.
    ranks = site.ranks()
    assert len(ranks) == 4
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)
    site.cluster.run("scontrol", "update", f"jobid={job}", "timelimit=1")
    soon(lambda: all(warned(rank) for rank in ranks), "the warning before the limit")
    for rank in ranks:
        os.kill(rank, signal.SIGCONT)
    soon(lambda: site.restarts(job) > 0, "the restart")
    site.cluster.run("scontrol", "update", f"jobid={job}", "timelimit=30")
    log = site.ended(job)
    assert "stopped by SIGUSR1" in log and "slurm: exit code 85; restart 1 of" in log
    assert load(store, Ref("model", "timed-out")).payload_sha256 == unbroken


def test_a_cancelled_training_leaves_its_state_and_stays_cancelled(site: Site, store: Store, unbroken: str) -> None:
    job = site.train("cancelled")
    soon(lambda: bool(checkpoints(store, "cancelled")), "a checkpoint")
    site.cluster.run("scancel", job)
    assert site.cluster.finished(job) == "CANCELLED"
    assert site.restarts(job) == 0
    assert checkpoints(store, "cancelled")
    log = site.ended(site.train("cancelled"))
    assert "resumed in epoch" in log
    assert load(store, Ref("model", "cancelled")).payload_sha256 == unbroken


def test_a_host_cut_off_in_training_is_left_behind_and_the_job_starts_again(
    site: Site, store: Store, unbroken: str
) -> None:
    job = site.train("cut", *SLOWLY)
    trains(site, store, "cut", job)
    assert site.cluster.job(job)["NodeList"] == "n[1-2]"
    site.cluster.cut("n2")
    try:
        log = site.ended(job)
    finally:
        site.cluster.cut("n2", mend=True)
    assert "resumed in epoch" in log
    assert site.restarts(job) >= 1
    assert site.cluster.job(job)["NodeList"] == "n[1,3]"
    assert load(store, Ref("model", "cut")).payload_sha256 == unbroken


def test_ranks_that_srun_starts_by_itself_learn_the_same(site: Site, store: Store, unbroken: str) -> None:
    lines = ("#!/bin/bash", "#SBATCH --output=logs/photoz-plain-%j.log", "source slurm/job.sh")
    train = 'run_job photoz-job train --shards shards/mgs --name plain "${TRAIN_FLAGS[@]}"'
    (site.folder / "plain.sh").write_text("\n".join([*lines, train, ""]))
    ranks = ("--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=2")
    site.ended(site.cluster.run("sbatch", "--parsable", *ranks, "plain.sh", cwd=site.folder).strip())
    assert load(store, Ref("model", "plain")).payload_sha256 == unbroken


@pytest.fixture(scope="module")
def shipped(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Another folder on the same cluster, with slurm/ as it comes and a virtual environment where it expects one."""
    folder = tmp_path_factory.mktemp("shipped")
    for name in ("slurm", "logs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.log"))
    (folder / ".venv").symlink_to(sys.prefix)
    return Site(site.cluster, folder)


def test_as_it_comes_the_demo_runs_and_finds_what_the_documented_commands_made_on_a_login_node(shipped: Site) -> None:
    section = (ROOT / "docs/running/slurm.md").read_text().split("## Compute nodes without internet", 1)[1]
    commands = section.split("```", 2)[1].removeprefix("sh\n")
    assert commands.count("photoz-job") == 2 and "slurm/submit.sh" in commands
    commands = commands.replace("sdss-dr17", "embedded").replace("20000", "240")
    small = {"PHOTOZ_EPOCHS": "2", "PHOTOZ_BATCH_SIZE": "32", "SITE_GPUS": "0", "SITE_SHARD_TASKS": "2"}
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=shipped.folder, env=shipped.cluster.environment() | small,
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    jobs = dict(line.split() for line in done.stdout.splitlines() if not line.startswith("{"))
    logs = {name: shipped.ended(job) for name, job in jobs.items()}
    assert '"status": "exists"' in logs["catalog"]
    assert logs["shard"].count('"status": "exists"') == 2
    store = open_store(str(shipped.folder / "photoz-store"))
    made = {kind: load(store, Ref(kind, "mgs")) for kind in KINDS}
    assert made["model"].settings["epochs"] == 2
    assert {path.suffix for path in (shipped.folder / "logs").glob("*-*")} == {".log"}
    assert not list(shipped.folder.glob("*.log"))

    # One script by itself; the host's GPU is a stand-in, which no torch can use.
    job = shipped.submit("train")
    assert shipped.cluster.finished(job) == "FAILED"
    failed = shipped.cluster.job(job)
    assert (failed["ExitCode"], failed["Restarts"]) == (f"{ExitCode.BAD_INPUT}:0", "0")
    log = shipped.log(job)
    assert log.count("photoz-job: error: PHOTOZ_DEVICE=cuda: ") == 1


def test_slurm_understands_the_options_that_submit_makes_of_settings(shipped: Site) -> None:
    given = {"SITE_GPUS": "h100:3", "SITE_NODES": "2", "SITE_CORES_PER_GPU": "2", "SITE_INFER_TASKS": "5"}
    held = {"SITE_SBATCH": "--hold --time=00:30:00", "SITE_GPU_SBATCH": "--nice=7"}
    jobs = shipped.submit_chain(**given, **held)
    try:
        seen = {name: shipped.cluster.job(job) for name, job in jobs.items()}
    finally:
        shipped.cluster.run("scancel", *jobs.values())
    assert {job["TimeLimit"] for job in seen.values()} == {"00:30:00"}
    assert (seen["train"]["TresPerNode"], seen["train"]["CPUs/Task"]) == ("gres:gpu:h100:3", "6")
    assert (seen["train"]["NumNodes"], seen["train"]["MinMemoryNode"]) == ("2-2", "96G")
    assert (seen["infer"]["TresPerNode"], seen["infer"]["ArrayTaskId"]) == ("gres:gpu:h100:1", "0-4")
    assert [name for name, job in seen.items() if job["Nice"] == "7"] == ["train", "infer"]


def test_what_slurm_refuses_is_named_and_leaves_nothing_submitted(shipped: Site) -> None:
    done = subprocess.run(
        ["slurm/submit.sh"], cwd=shipped.folder, env=shipped.cluster.environment() | {"SITE_GPU_PARTITION": "none"},
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert "slurm/submit.sh: Slurm refused train, so nothing is submitted" in done.stderr
    assert "--partition=none" in done.stderr
    ids = [line.split()[1] for line in done.stdout.splitlines()]
    assert [shipped.cluster.finished(job) for job in ids] == ["CANCELLED", "CANCELLED"]
