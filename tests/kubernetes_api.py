"""An emulated Kubernetes API server, for kubectl to talk to: `python -m tests.kubernetes_api FOLDER`.

It keeps objects as they come and does nothing with them, except that it refuses to change what Kubernetes keeps as it
is. Its address is written to FOLDER/address once it listens.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import kmock
from aiohttp import web

NAMESPACES = "/api/v1/namespaces"
IMMUTABLE = {  # of a patch's fields, of which kubectl sends those that change
    "jobs": ("spec.template", "spec.completionMode", "spec.podFailurePolicy", "spec.backoffLimitPerIndex"),
    "configmaps": ("data", "immutable"),  # those that say so of themselves, as all of ours do
}


class Api(kmock.KubernetesEmulator):
    """kmock's emulator, with namespaces, and with the core group called `v1` as kubectl expects it, not `/v1`."""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; those about namespaces themselves here, because kmock can't read their paths."""
        parent, _, name = request.path.rpartition("/")
        if request.path == NAMESPACES and request.method == "POST":
            made = json.loads(await request.text())
            self.__dict__.setdefault("namespaces", {})[made["metadata"]["name"]] = made
            return web.json_response(made, status=201)
        if parent == NAMESPACES and request.method in ("GET", "PATCH"):
            found = self.__dict__.get("namespaces", {}).get(name)
            missing = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            return web.json_response(found or missing, status=200 if found else 404)
        fixed = _immutable(request.path, await request.text()) if request.method == "PATCH" else ""
        if fixed:
            said = f"{name} is invalid: {fixed}: Invalid value: field is immutable"
            refused = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422}
            return web.json_response(refused | {"message": said}, status=422)
        return await super().__call__(request)

    async def _serve_version(self, request: kmock.Request) -> Any:
        document: Any = await super()._serve_version(request)
        return {**document, "groupVersion": document["groupVersion"].removeprefix("/")}


def _immutable(path: str, patch: str) -> str:
    """The first field that a patch would change and must not; empty if there is none."""
    for field in IMMUTABLE.get(path.split("/")[-2], ()):
        inner = json.loads(patch)
        for key in field.split("."):
            inner = inner.get(key) if isinstance(inner, dict) else None
        if inner is not None:
            return field
    return ""


async def serve(folder: Path) -> None:
    """Serve until the process is ended."""
    async with Api() as api, kmock.Server(api) as server:
        api.resources.load_bundled()
        part = folder / "address.part"
        part.write_text(str(server.url))
        part.rename(folder / "address")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
