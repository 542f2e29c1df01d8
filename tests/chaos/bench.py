"""What the experiments work on: a sky server, stores, and one undisturbed run of the five jobs to compare with."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from photoz.artifacts import KINDS, Artifact, Ref, Store, load, upkeep
from photoz.artifacts.garbage import delete_garbage, garbage
from photoz.artifacts.refs import data_prefix, fingerprint_key, manifest_key
from tests.chaos.children import run_child

BASE = "base"
SMALL_BATCH = ("--batch-size", "16")
_NOW = -60.0  # gc of whatever is older than a minute from now: everything


@contextmanager
def running_sky(faults: str = "") -> Iterator[str]:
    """The embedded sky as a server of its own; yields its URL."""
    command = [sys.executable, "-m", "jobs", "sky", "serve", "--port", "0", "--faults", faults]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        yield str(json.loads(server.stdout.readline())["url"])
    finally:
        server.terminate()
        server.wait(30)


@dataclass(frozen=True)
class Job:
    """One of the five jobs, so small that it takes a second or two, reading the undisturbed run's artifacts."""

    kind: str
    command: tuple[str, ...]

    def arguments(self, store: str, name: str) -> list[str]:
        """The command line that writes `name`."""
        return [*self.command, "--store", store, "--name", name]


def the_jobs(sky_url: str) -> list[Job]:
    """catalog, shard, train, infer and evaluate; each reads what `make_base` made."""
    survey = ("--survey-url", sky_url)
    shards = ("--shards", f"shards/{BASE}")
    return [
        Job("catalog", ("catalog", "--survey", "embedded", "--limit", "60", *survey)),
        Job("shards", ("shard", "--catalog", f"catalog/{BASE}", "--samples-per-shard", "20", *survey)),
        Job("model", ("train", *shards, "--epochs", "2", *SMALL_BATCH)),
        Job(
            "predictions",
            ("infer", "--model", f"model/{BASE}", *shards, "--split", "all", *SMALL_BATCH),
        ),
        Job("report", ("evaluate", "--predictions", f"predictions/{BASE}", "--bootstrap", "10", "--gallery", "0")),
    ]


def make_base(store: Store, jobs: list[Job], folder: Path) -> dict[str, str]:
    """Run the five jobs undisturbed as `base`; returns each payload's digest."""
    for job in jobs:
        ended = run_child(job.arguments(store.url, BASE), folder)
        assert ended.code == 0, ended.err
    return {kind: the_artifact(store, kind, BASE).payload_sha256 for kind in KINDS}


def copy_store(source: Store, target: Store) -> None:
    """Put every object of one store into another."""
    for item in source.list(""):
        target.put(item.key, source.get(item.key))


def the_artifact(store: Store, kind: str, name: str) -> Artifact:
    """The one version there is of that name."""
    artifact = load(store, Ref(kind, name))
    assert artifact.ref.version == 1, f"{artifact.ref}: a restart has made another version"
    return artifact


def check_and_remove(store: Store, kind: str, name: str, digest: str) -> None:
    """The same bytes as undisturbed; gc finds all that is left over and nothing else. Removes the artifact then."""
    artifact = the_artifact(store, kind, name)
    assert artifact.payload_sha256 == digest, "another payload than that of an undisturbed run"
    upkeep.verify(artifact)
    left = [item for item in garbage(store, _NOW) if item.key.startswith(f"{kind}/{name}/")]
    needed = {entry.path for entry in artifact.entries}
    assert not needed & {item.key for item in left}, "gc calls a needed file garbage"
    delete_garbage(store, left, _NOW)
    upkeep.verify(artifact)
    folder = data_prefix(kind, name, artifact.manifest.fingerprint)
    there = {item.key for item in store.list(f"{kind}/{name}/")}
    receipts = {key for key in there if re.match(rf"{folder}parts/(pieces/.*|\d+-of-\d+)\.json", key)}
    # Of a job that was killed just after the manifest there is no fingerprint.
    version = {manifest_key(artifact.ref), fingerprint_key(artifact.ref, artifact.manifest.fingerprint)}
    extra = sorted(there - needed - receipts - version)
    assert not extra and there >= needed, f"gc left {extra}"
    _remove(store, artifact)


def _remove(store: Store, artifact: Artifact) -> None:
    for item in list(store.list(f"{artifact.ref.kind}/{artifact.ref.name}/")):
        store.delete(item.key)
