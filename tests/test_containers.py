"""The image of the `cpu` target, from the Containerfile as it is, run by the commands of docs/running/docker.md."""
# ruff: noqa: S108 - the /tmp of a container is its own

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from photoz.artifacts import KINDS, Ref, load, open_store, upkeep
from tests.docker_engine import DOCKER, Docker
from tests.images import CPU_IMAGE, ROOT

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(1500),
    pytest.mark.xdist_group("docker"),  # one daemon and one build for all, where pytest runs with --dist loadgroup
]

CALLER = 4321  # no user of the machine's, nor of the image's
CONFINED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]
SMALL = {"shard": "--samples-per-shard 40", "train": "--epochs 2 --batch-size 32"}


def documented() -> tuple[str, list[str]]:
    """The shell function of docs/running/docker.md, and its commands one by one."""
    function, commands = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/running/docker.md").read_text(), re.M | re.S)
    assert "--read-only --cap-drop ALL" in function and '--user "$(id -u):$(id -g)"' in function
    return function, commands.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the caller's, whom the tests' root only plays."""
    tmp_path.chmod(0o755)
    (tmp_path / "photoz-store").mkdir()
    os.chown(tmp_path / "photoz-store", CALLER, CALLER)
    return tmp_path


def test_the_documented_commands_run_the_whole_chain_and_files_are_the_callers(
    docker: Docker, image_commit: str, folder: Path
) -> None:
    function, commands = documented()
    assert [command.split()[1] for command in commands] == [
        "catalog",
        "shard",
        "train",
        "infer",
        "evaluate",
        "artifacts",
    ]
    environment = os.environ | {"DOCKER_HOST": f"unix://{docker.folder}/docker.sock"}
    prelude = f'id() {{ echo {CALLER}; }}\ndocker() {{ {DOCKER} "$@"; }}\n{function}\n'
    for command in commands:
        words = f"{command.replace('--limit 2000', '--limit 240')} {SMALL.get(command.split()[1], '')}"
        done = subprocess.run(
            ["bash", "-euc", prelude + words], capture_output=True, text=True, env=environment, cwd=folder, check=False
        )
        assert done.returncode == 0, done.stderr
        assert command.split()[1] == "artifacts" or json.loads(done.stdout)["status"] == "created"
    store = open_store(str(folder / "photoz-store"))
    image = f"{CPU_IMAGE}@{docker('image', 'inspect', '--format', '{{.Id}}', CPU_IMAGE)}"
    for kind in KINDS:
        made = load(store, Ref(kind, "first"))
        assert upkeep.verify(made) > 0
        assert (made.manifest.producer.commit, made.manifest.producer.image) == (image_commit, image)
    files = list((folder / "photoz-store").rglob("*"))
    assert (folder / "photoz-store/report-first/index.html").exists()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in files} == {(CALLER, CALLER)}


def test_the_image_holds_no_tools_to_build_with_and_lacks_no_package(docker: Docker, image_commit: str) -> None:
    look = "for tool in gcc cc g++ make git ld uv conda; do ! command -v $tool || exit 1; done; ! test -e /source"
    docker("run", "--rm", *CONFINED, CPU_IMAGE, "sh", "-c", look)
    docker("run", "--rm", *CONFINED, "--tmpfs", "/tmp", CPU_IMAGE, "pip", "--python", "/opt/photoz/bin/python", "check")


def test_nothing_can_be_written_but_the_mounts_and_the_user_is_nobody(docker: Docker, image_commit: str) -> None:
    assert docker("run", "--rm", *CONFINED, CPU_IMAGE, "id", "-u") == "10001"
    for place in ("/opt/photoz", "/etc", "/tmp", "/store"):
        done = docker.run("run", "--rm", *CONFINED, CPU_IMAGE, "touch", f"{place}/x")
        assert done.returncode == 1 and ("Read-only" in done.stderr or "denied" in done.stderr)
    # Even without --read-only, the program can't change itself.
    done = docker.run("run", "--rm", "--cap-drop", "ALL", "--network", "none", CPU_IMAGE, "touch", "/opt/photoz/x")
    assert done.returncode == 1


def test_labels_say_what_it_is_and_from_which_commit(docker: Docker, image_commit: str) -> None:
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", CPU_IMAGE))
    assert labels["org.opencontainers.image.revision"] == image_commit
    assert labels["org.opencontainers.image.licenses"] == "BSD-3-Clause"


def test_docker_stop_lets_a_job_leave_with_85(docker: Docker, image_commit: str) -> None:
    words = ["photoz-job", "run", "--survey", "embedded", "--limit", "2000", "--store", "/tmp/store"]
    name = docker("run", "--detach", *CONFINED, "--tmpfs", "/tmp:exec", "--stop-timeout", "30", CPU_IMAGE, *words)
    try:
        deadline = time.monotonic() + 120
        while not docker.run("logs", name).stderr:
            assert time.monotonic() < deadline, "the job has said nothing"
            time.sleep(0.2)
        docker("stop", name)
        assert docker("wait", name) == "85"
        assert "stopped by SIGTERM" in docker.run("logs", name).stderr
    finally:
        docker("rm", "-fv", name)


def test_a_mistake_is_one_line_and_exit_code_2(docker: Docker, image_commit: str) -> None:
    done = docker.run("run", "--rm", *CONFINED, "--tmpfs", "/tmp", CPU_IMAGE, "photoz-job", "catalog", "--limit", "-5")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
