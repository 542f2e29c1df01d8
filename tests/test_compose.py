"""containers/compose.yaml, by the commands of docs/running/docker.md, with the images under test."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from photoz.artifacts import KINDS, Ref, load, open_store, upkeep
from tests.docker_engine import DOCKER, Docker
from tests.images import CPU_IMAGE, ROOT
from tests.test_manifests import JOBS, compose_settings

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(1500),
    pytest.mark.xdist_group("docker"),  # one daemon and one build for all, where pytest runs with --dist loadgroup
]

FILE = ROOT / "containers/compose.yaml"
LIMIT_S = 1200


@dataclass(frozen=True)
class Compose:
    """Compose on the tests' own daemon, with the file as it is, or as its old version 1 can read it."""

    docker: Docker
    program: list[str]
    environment: dict[str, str]

    def __call__(self, *arguments: str) -> str:
        """Run a command of compose's; fail with its output."""
        done = subprocess.run(
            [*self.program, *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout


@contextmanager
def running_compose(docker: Docker, folder: Path, settings: dict[str, str]) -> Iterator[Compose]:
    """Compose, whichever is installed; its containers and volumes are gone afterwards."""
    environment = os.environ | settings | {"DOCKER_HOST": f"unix://{docker.folder}/docker.sock"}
    if not docker.run("compose", "version").returncode:
        program = [DOCKER, "compose", "-f", str(FILE)]
    elif old := shutil.which("docker-compose"):
        (folder / "compose.yaml").write_text(re.sub(r"^name: photoz$", "", FILE.read_text(), flags=re.M))
        program = [old, "--project-name", "photoz", "-f", str(folder / "compose.yaml")]
    else:
        pytest.skip("not installed: docker compose (apt: docker-compose)")
    compose = Compose(docker, program, environment)
    try:
        yield compose
    finally:
        compose("down", "--volumes")


def documented() -> list[list[str]]:
    """The words after `docker compose -f containers/compose.yaml` of the first commands of the docs' section."""
    section = (ROOT / "docs/running/docker.md").read_text().split("## Everything at once", 1)[1]
    block = section.split("```", 2)[1]
    return [
        line.split()[4:]
        for line in block.splitlines()
        if line.startswith(f"docker compose -f {FILE.relative_to(ROOT)}")
    ]


def test_the_documented_commands_run_the_whole_chain(
    docker: Docker, image_commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = documented()
    assert [words[0] for words in commands] == ["up", "logs"]
    with running_compose(docker, tmp_path, {"PHOTOZ_LIMIT": "240"}) as compose:
        printed = [compose(*words) for words in commands]
        assert json.loads(re.findall(r"\{.*\}", printed[1])[-1])["artifact"] == "report/mgs@v1"
        ids = [compose("ps", "--all", "--quiet", name).strip() for name in JOBS]
        assert [docker("inspect", "--format", "{{.State.ExitCode}}", each) for each in ids] == ["0"] * len(JOBS)
        # The store is open to this machine, as the file's comment says.
        settings = compose_settings("evaluate")
        for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, settings[name])
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8333")
        store = open_store("s3://photoz/demo")
        for kind in KINDS:
            made = load(store, Ref(kind, "mgs"))
            assert upkeep.verify(made) > 0
            assert (made.manifest.producer.commit, made.manifest.producer.image) == (image_commit, CPU_IMAGE)
        assert load(store, Ref("catalog", "mgs")).manifest.settings["limit"] == 240
