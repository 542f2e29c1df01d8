"""photoz-job doctor: what this machine has, what is missing, and what to do about it."""

import importlib.metadata
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from jobs import logs
from jobs.options import JobOptions, flag
from photoz import runtime
from photoz.errors import PhotozError
from photoz.surveys import TABLE, survey_named

EPILOG = """
[bold]Examples[/bold]

photoz-job doctor

photoz-job doctor --store s3://bucket/photoz --survey sdss-dr17 --json
"""
LOW_DISK_GB = 5.0
LOW_MEMORY_GB = 4.0
REPLY_LIMIT_S = 20


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: what was looked at, how it is, and what to do if it is not well."""

    check: str
    state: Literal["ok", "note", "fail"]
    found: str
    advice: str = ""


def doctor(
    store: Annotated[str, flag("store", "Object store to check.", metavar="URL")] = JobOptions.store,
    survey: Annotated[str, flag("survey", "Survey to check, or table.", metavar="NAME")] = "embedded",
    as_json: Annotated[bool, typer.Option("--json", help="JSON for scripts instead of a table.")] = False,
) -> None:
    """Check store, credentials, conditional writes, survey, GPU, NCCL and disk, and say what to do.

    Exit code 0 if every job can run here, 2 if something has to be mended first.
    """
    logs.set_up("text")
    findings = [*_machine(), *_store(store), _disk("cache", runtime.cache_folder()), _survey(survey), *_gpu()]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        _print(findings)
    if any(finding.state == "fail" for finding in findings):
        sys.exit(2)  # typer.Exit would only be returned, as 2, to whoever started the app


def _machine() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    packages = [f"{name} {importlib.metadata.version(name)}" for name in ("photoz", "torch", "numpy", "astroquery")]
    yield Finding("python", "ok", f"{version}; {', '.join(packages)}")
    memory = _memory_gb()
    advice = "fewer galaxies at once: lower --batch-size" if memory < LOW_MEMORY_GB else ""
    yield Finding(
        "cores, memory", "note" if advice else "ok", f"{runtime.usable_cores()} cores, {memory:.0f} GB", advice
    )
    yield _disk("scratch", Path(tempfile.gettempdir()))


def _memory_gb() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1e6
    return float("nan")


def _store(url: str) -> Iterator[Finding]:
    from photoz.artifacts import open_store
    from photoz.artifacts.probe import check_conditional_create

    check = "store"
    try:
        opened = open_store(url)
        at = getattr(opened, "endpoint", "")
        yield Finding(check, "ok", f"{opened.url} can be reached" + (f" at {at}" if at else ""))
        check = "conditional writes"
        # Afresh: what an earlier probe found may have changed with the server, and that is what is asked here.
        check_conditional_create(opened)
        yield Finding(check, "ok", "of two creates, and of eight at once, one is accepted, as commits need it")
    except PhotozError as error:
        what, _, advice = str(error).rpartition(";")
        yield Finding(check, "fail", what or str(error), advice.strip())
        return
    if urlsplit(url).scheme != "s3":
        yield _disk("store's disk", Path(opened.url))


def _disk(check: str, folder: Path) -> Finding:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    low = free < LOW_DISK_GB
    advice = "free some space, or choose another place (--store, PHOTOZ_CACHE, TMPDIR)" if low else ""
    return Finding(check, "note" if low else "ok", f"{free:.0f} GB free in {folder}", advice)


def _survey(name: str) -> Finding:
    if name == TABLE:
        return Finding("survey", "ok", "your own table; no server is asked")
    import requests

    try:
        survey = survey_named(name, also=(TABLE,))
        with survey.open(None) as opened:
            reply = requests.get(opened.base_url, timeout=REPLY_LIMIT_S)
    except PhotozError as error:
        return Finding("survey", "fail", str(error))
    except requests.RequestException as error:
        reason = type(error).__name__
        advice = "check the network and its proxy settings, or use --survey embedded"
        return Finding("survey", "fail", f"{name}: no answer ({reason})", advice)
    state: Literal["ok", "fail"] = "ok" if reply.status_code < 500 else "fail"
    simulated = " (simulated images)" if survey.simulated else ""
    return Finding("survey", state, f"{name}{simulated} answers with status {reply.status_code}")


def _gpu() -> Iterator[Finding]:
    import torch

    from photoz.model.devices import describe_device, why_no_cuda

    why = why_no_cuda()
    if why:
        yield Finding("GPU", "note", f"none to compute on; {why}", "until then jobs run on the CPU")
    else:
        devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        yield Finding("GPU", "ok", "; ".join(describe_device(device, 1) for device in devices))
        nccl: Callable[[], bool] = torch.distributed.is_nccl_available
        yield Finding(
            "NCCL", "ok" if nccl() else "note", "available" if nccl() else "missing", "" if nccl() else "one GPU only"
        )
    vision = importlib.util.find_spec("torchvision") is not None
    advice = "" if vision else "only needed for --model torchvision:…"
    yield Finding("torchvision", "ok" if vision else "note", "installed" if vision else "not installed", advice)


def _print(findings: list[Finding]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    colours = {"ok": "green", "note": "yellow", "fail": "red"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "check", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        state = f"[{colours[finding.state]}]{finding.state}[/]"
        table.add_row(state, finding.check, finding.found.replace("[", r"\["), finding.advice)
    console.print(table, highlight=False)
