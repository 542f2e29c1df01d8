"""A Docker daemon of the tests' own: private socket and folders, no rule in the firewall, ended by its pid."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DOCKER, DOCKERD = "/usr/bin/docker", "/usr/sbin/dockerd"  # Debian's: other clients may not speak with its daemon
START_LIMIT_S = 60


@dataclass(frozen=True)
class Docker:
    """Commands to the daemon in `folder`."""

    folder: Path

    def __call__(self, *arguments: str, check: bool = True, timeout_s: float = 600) -> str:
        """Run `docker ARGUMENTS` and return its stdout; fail with its stderr."""
        done = self.run(*arguments, timeout_s=timeout_s)
        assert not check or done.returncode == 0, f"docker {' '.join(arguments[:3])}: {done.stderr[-3000:]}"
        return done.stdout.strip()

    def run(self, *arguments: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS`, whatever comes of it."""
        environment = os.environ | {"DOCKER_HOST": f"unix://{self.folder}/docker.sock", "DOCKER_BUILDKIT": "0"}
        return subprocess.run(
            [DOCKER, *arguments], capture_output=True, text=True, env=environment, timeout=timeout_s, check=False
        )

    @contextmanager
    def network(self, name: str) -> Iterator[str]:
        """A bridge on which containers find one another by name; nothing on it outlives the block."""
        self("network", "create", name)
        try:
            yield name
        finally:
            for _ in range(5):  # one that was just being started may come late
                if left := self("ps", "-aq", "--filter", f"network={name}").split():
                    self("rm", "-fv", *left, check=False)
                if not self.run("network", "rm", name).returncode:
                    break
            else:
                raise AssertionError(f"network {name} can't be removed")


def why_not() -> str | None:
    """What is missing for a daemon here, if anything is."""
    if os.geteuid() != 0:
        return "a Docker daemon needs root"
    missing = [program for program in (DOCKER, DOCKERD, "mmdebstrap") if not shutil.which(program)]
    return f"not installed: {', '.join(missing)} (apt: docker.io, iptables, mmdebstrap)" if missing else None


@contextmanager
def running_docker(folder: Path) -> Iterator[Docker]:
    """Start a daemon whose images stay in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    docker, pidfile = Docker(folder), folder / "dockerd.pid"
    command = [
        DOCKERD, f"--host=unix://{folder}/docker.sock", f"--data-root={folder}/root", f"--exec-root={folder}/exec",
        f"--pidfile={pidfile}", "--bridge=none", "--iptables=false", "--ip-forward=false",
    ]  # fmt: skip
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while docker.run("version").returncode:
            assert daemon.poll() is None, f"dockerd ended: {(folder / 'dockerd.log').read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"dockerd was not ready in {START_LIMIT_S} s"
            time.sleep(0.2)
        yield docker
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        _unmount_below(folder)


def _unmount_below(folder: Path) -> None:
    """Take away what the daemon has left mounted, as the network namespace of containers on a bridge."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in sorted((place for place in places if place.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", place], check=True, timeout=60)
