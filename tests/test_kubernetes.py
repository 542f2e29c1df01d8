"""`kubectl apply -f k8s/`, and every Job's pods run as containers until the report is there."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import yaml

from photoz.artifacts import KINDS, Ref, Store, load, open_store, upkeep
from tests.docker_engine import Docker
from tests.images import CPU_IMAGE, CUDA_IMAGE, SEAWEEDFS_IMAGE
from tests.kubectl import ROOT, Api, emulated_api, kustomize
from tests.pods import Cluster, JobRun
from tests.seaweedfs import ACCESS_KEY, SECRET_KEY
from tests.test_chain import photoz_job

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(1500),
    pytest.mark.xdist_group("docker"),  # one daemon and one build for all, where pytest runs with --dist loadgroup
]

SMALL = {"PHOTOZ_LIMIT": "240", "PHOTOZ_EPOCHS": "2", "PHOTOZ_BATCH_SIZE": "32", "PHOTOZ_SAMPLES_PER_SHARD": "20"}
CHAIN_LIMIT_S = 1200


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """An API server that holds nothing yet."""
    with emulated_api(tmp_path) as running:
        yield running


@contextmanager
def cluster_of(api: Api, docker: Docker, name: str) -> Iterator[Cluster]:
    with docker.network(name) as network:
        cluster = Cluster(docker, network, api.objects())
        (train,) = (job for job in cluster.of_kind("Job") if "train" in job["metadata"]["name"])
        (train,) = train["spec"]["template"]["spec"]["containers"]
        device = next(each for each in train["env"] if each["name"] == "PHOTOZ_DEVICE")
        device["value"] = "cpu"  # there is no GPU here
        try:
            yield cluster
        finally:
            cluster.closed.set()


def apply_folder(api: Api, folder: Path, **settings: str) -> None:
    """`kubectl apply -f k8s/`, with the settings edited as a user would do it."""
    shutil.copytree(ROOT / "k8s", folder)
    edited = folder / "10-settings.yaml"
    text = edited.read_text()
    for name, value in settings.items():
        text = re.sub(rf"^  {name}: .*\n", "", text, flags=re.M) + f'  {name}: "{value}"\n'
    edited.write_text(text)
    search = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([folder / "rename-settings.sh"], env=os.environ | search, check=True, capture_output=True)
    api.kubectl("apply", "--validate=false", "-f", str(folder))


def apply_secret(api: Api) -> None:
    """The example, filled in as its comment says."""
    secret = (ROOT / "k8s/examples/s3-secret.yaml").read_text()
    filled_in = secret.replace("your-key", ACCESS_KEY).replace("your-secret", SECRET_KEY)
    api.kubectl("apply", "--validate=false", "-f", "-", stdin=filled_in)


def start_s3(docker: Docker, network: str) -> None:
    """SeaweedFS by the name `seaweedfs`, for manifests that bring no store of their own."""
    keys = ["--env", f"AWS_ACCESS_KEY_ID={ACCESS_KEY}", "--env", f"AWS_SECRET_ACCESS_KEY={SECRET_KEY}"]
    options = ["-dir=/tmp", "-ip=127.0.0.1", "-ip.bind=0.0.0.0", "-bucket=photoz", "-s3.port=8333"]
    options.append("-volume.max=10000")  # a bucket takes seven
    docker("run", "-d", "--name", "seaweedfs", "--network", network, *keys, SEAWEEDFS_IMAGE, "mini", *options)


def store_of(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, container: str) -> Store:
    """The cluster's store, seen from outside of it."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    (settings,) = (each["data"] for each in cluster.of_kind("ConfigMap"))
    address = cluster.docker("inspect", "--format", form, container)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{address}:8333")
    monkeypatch.setenv("AWS_REGION", settings["AWS_REGION"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", settings["AWS_REGION"])
    deadline = time.monotonic() + 60
    while True:
        try:
            boto3.Session().client("s3").head_bucket(Bucket="photoz")  # boto3 itself remembers an earlier test's keys
            return open_store(settings["PHOTOZ_STORE"])
        except Exception as error:  # noqa: BLE001 - it is starting
            assert time.monotonic() < deadline, error
            time.sleep(0.5)


@dataclass(frozen=True)
class Chain:
    """All five Jobs, started at once."""

    jobs: dict[str, JobRun]

    @classmethod
    def start(cls, cluster: Cluster) -> "Chain":
        return cls({job["metadata"]["name"]: JobRun(cluster, job).start() for job in cluster.of_kind("Job")})

    def wait_until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + CHAIN_LIMIT_S
        while not true():
            failed = [f"{job.name}: {job.failed}\n{job.log()}" for job in self.jobs.values() if job.failed]
            assert not failed, "\n".join(failed)
            if time.monotonic() > deadline:
                raise AssertionError(f"not {what}:\n" + "\n".join(job.log() for job in self.jobs.values()))
            time.sleep(0.2)

    def wait(self) -> None:
        self.wait_until("complete", lambda: all(job.over.is_set() for job in self.jobs.values()))
        assert not [job.failed for job in self.jobs.values() if job.failed]


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same catalogue and shards, made here without any cluster."""
    store = str(tmp_path_factory.mktemp("one") / "store")
    for job in ("catalog", "shard"):
        done = photoz_job(job, "--store", store, **SMALL, PHOTOZ_SURVEY="embedded")
        assert done.code == 0, done.err
    return open_store(store)


def assert_complete(store: Store, in_one_process: Store, commit: str, trained_by: str) -> None:
    made = {kind: load(store, Ref(kind, "mgs")) for kind in KINDS}
    assert all(found.ref.version == 1 and upkeep.verify(found) > 0 for found in made.values())
    for kind in ("catalog", "shards"):
        assert made[kind].payload_sha256 == load(in_one_process, Ref(kind, "mgs")).payload_sha256
    for kind, found in made.items():
        producer = found.manifest.producer
        assert producer.commit == commit
        assert producer.image == (trained_by if kind == "model" else CPU_IMAGE)
        assert producer.scheduler["name"] == "kubernetes"


def test_kubectl_apply_starts_the_whole_chain_and_it_completes_on_s3(
    api: Api, tmp_path: Path, docker: Docker, image_commit: str, in_one_process: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_folder(api, tmp_path / "k8s", **SMALL, AWS_ENDPOINT_URL_S3="http://seaweedfs:8333")
    apply_secret(api)
    with cluster_of(api, docker, "photoz-plain") as cluster:
        start_s3(docker, cluster.network)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        store = store_of(cluster, monkeypatch, "seaweedfs")
        chain = Chain.start(cluster)
        chain.wait()
        assert {name: len(job.exits) for name, job in chain.jobs.items()} == {
            "photoz-catalog": 1,
            "photoz-shard": 4,
            "photoz-train": 1,
            "photoz-infer": 4,
            "photoz-evaluate": 1,
        }
        assert_complete(store, in_one_process, image_commit, trained_by=CUDA_IMAGE)

        shell = yaml.safe_load((tmp_path / "k8s/components/shell/shell.yaml").read_text())
        cluster.start("shell", "photoz-shell", shell["spec"]["template"], {})
        in_docs = re.search(r"-- sh -c '(.+)' > report.html", (ROOT / "docs/running/kubernetes.md").read_text())
        assert in_docs
        assert docker("exec", "shell", "sh", "-c", in_docs[1]).lower().startswith("<!doctype html>")
        assert "conditional writes" in docker("exec", "shell", "photoz-job", "doctor")


def test_on_the_small_cluster_a_second_chain_makes_up_for_a_lost_and_a_drained_pod(
    api: Api, docker: Docker, image_commit: str, in_one_process: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = kustomize("cpu-small", "gpus", settings=SMALL | {"PHOTOZ_EPOCHS": "40"}, nameSuffix="-b")
    api.kubectl("apply", "--validate=false", "-f", "-", stdin=manifests)
    with cluster_of(api, docker, "photoz-small") as cluster:
        deployment = cluster.objects["Deployment", "seaweedfs-b"]
        cluster.start("seaweedfs-b", "seaweedfs-b", deployment["spec"]["template"], {})
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "photoz")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "only-inside-this-cluster")
        store = store_of(cluster, monkeypatch, "seaweedfs-b")
        chain = Chain.start(cluster)
        shard, train = chain.jobs["photoz-shard-b"], chain.jobs["photoz-train-b"]

        chain.wait_until(
            "sharding", lambda: any("/parts/pieces/" in found.key for found in store.list("shards/mgs/data/"))
        )
        lost = next(pod for index, pod in shard.running.items() if not shard.exits[index])
        cluster.disrupted.add(lost)
        docker("kill", lost)

        chain.wait_until("training", lambda: any("/state/" in found.key for found in store.list("model/mgs/data/")))
        docker("kill", "--signal", "TERM", train.running[1])
        chain.wait()

        assert [codes for codes in shard.exits.values() if codes != [0]] == [[137, 0]]
        assert all(codes[0] == 85 for codes in train.exits.values()), train.exits
        assert train.exits[0] == [85, 0]
        assert_complete(store, in_one_process, image_commit, trained_by=CPU_IMAGE)


def test_pods_whose_store_goes_away_for_longer_than_their_patience_end_with_75_and_complete_when_it_is_back(
    api: Api, tmp_path: Path, docker: Docker, image_commit: str, in_one_process: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL | {"PHOTOZ_EPOCHS": "40", "AWS_ENDPOINT_URL_S3": "http://seaweedfs:8333"}
    settings["PHOTOZ_PATIENCE"] = "20s"
    apply_folder(api, tmp_path / "k8s", **settings)
    apply_secret(api)
    with cluster_of(api, docker, "photoz-away") as cluster:
        start_s3(docker, cluster.network)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        store = store_of(cluster, monkeypatch, "seaweedfs")
        chain = Chain.start(cluster)
        # The first pod trains, and all others that are left wait for the model.
        chain.wait_until("training", lambda: any("/state/" in found.key for found in store.list("model/mgs/data/")))
        docker("stop", "--time", "5", "seaweedfs")
        cut_off = [chain.jobs[f"photoz-{name}"] for name in ("train", "infer", "evaluate")]
        assert not any(job.over.is_set() for job in cut_off)
        chain.wait_until("given up", lambda: all(job.exits[0] for job in cut_off))
        docker("start", "seaweedfs")
        chain.wait()
        for job in cut_off:
            assert {codes[0] for codes in job.exits.values()} == {75}, job.exits
            assert job.exits[0][-1] == 0
        store = store_of(cluster, monkeypatch, "seaweedfs")  # it may have another address now
        assert_complete(store, in_one_process, image_commit, trained_by=CUDA_IMAGE)


def test_bad_input_fails_a_job_at_its_first_pod(api: Api, tmp_path: Path, docker: Docker, image_commit: str) -> None:
    apply_folder(api, tmp_path / "k8s", PHOTOZ_LIMIT="-5")
    apply_secret(api)
    with cluster_of(api, docker, "photoz-bad") as cluster:
        job = JobRun(cluster, cluster.objects["Job", "photoz-catalog"]).start()
        assert job.over.wait(120)
        assert job.failed and job.failed.endswith("ended with 2")
        assert "PHOTOZ_LIMIT=-5: expected 1 or more" in cluster.termination_message("photoz-catalog-0-attempt-0")
        assert all(len(codes) <= 1 for codes in job.exits.values())
