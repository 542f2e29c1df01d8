"""Real kubectl against the emulated API."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "photoz"
_PATHS = {
    "Job": "apis/batch/v1/namespaces/photoz/jobs",
    "Deployment": "apis/apps/v1/namespaces/photoz/deployments",
    "ConfigMap": "api/v1/namespaces/photoz/configmaps",
    "Secret": "api/v1/namespaces/photoz/secrets",
    "Service": "api/v1/namespaces/photoz/services",
}


def kubectl(*arguments: str, stdin: str | None = None, home: Path | None = None) -> str:
    """Run kubectl in the repository's root; fail with its stderr."""
    program = Path(sys.executable).with_name("kubectl")
    environment = os.environ | ({"HOME": str(home), "KUBECONFIG": os.devnull} if home else {})
    done = subprocess.run(
        [program, *arguments], input=stdin, capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def kustomize(*parts: str, settings: dict[str, str] | None = None, patch: str | None = None, **fields: str) -> str:
    """What `kubectl apply -k` sends for an overlay of a site's own: parts are an overlay or components, in this order.

    Fields are those of a kustomization: `nameSuffix`, `namespace`.
    """
    bases = [part for part in parts if (ROOT / "k8s-overlays" / part).is_dir()]
    with tempfile.TemporaryDirectory() as folder:
        here = os.path.relpath(ROOT, Path(folder).resolve())
        kustomization: dict[str, Any] = dict(fields)
        kustomization["resources"] = [f"{here}/k8s-overlays/{base}" for base in bases] or [f"{here}/k8s"]
        kustomization["components"] = [f"{here}/k8s/components/{part}" for part in parts if part not in bases]
        if settings:
            data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "any"}, "data": settings}
            kustomization["patches"] = [{"target": {"kind": "ConfigMap"}, "patch": json.dumps(data)}]
        if patch:
            kustomization["patches"] = [{"patch": patch}]
        (Path(folder) / "kustomization.yaml").write_text(json.dumps(kustomization))
        return kubectl("kustomize", folder)


@dataclass(frozen=True)
class Api:
    """An emulated API server, and kubectl's own folder."""

    address: str
    home: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl against it."""
        return kubectl("--server", self.address, *arguments, stdin=stdin, home=self.home)

    def objects(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What it holds that pods are made of, by kind and name."""
        found = {}
        for kind, path in _PATHS.items():
            for item in json.loads(self.kubectl("get", "--raw", f"/{path}"))["items"]:
                found[kind, item["metadata"]["name"]] = item
        return found


@contextmanager
def emulated_api(folder: Path) -> Iterator[Api]:
    """Start the emulated API server."""
    with (folder / "api.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.kubernetes_api", str(folder)], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while not (folder / "address").exists():
            assert server.poll() is None and time.monotonic() < deadline, (folder / "api.log").read_text()
            time.sleep(0.05)
        yield Api((folder / "address").read_text(), folder)
    finally:
        server.terminate()
        server.wait(20)
