"""photoz-job artifacts: look at, check and tidy what is in a store."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console, RenderableType
from rich.table import Table

from jobs import logs
from jobs.options import JobOptions, flag
from photoz import artifacts as stored
from photoz.artifacts.refs import KINDS, Ref
from photoz.errors import BadFormat, BadInput
from photoz.redaction import shown
from photoz.settings import parse_duration

if TYPE_CHECKING:
    from photoz.artifacts import Artifact, Store
    from photoz.artifacts.status import DraftStatus, SliceStatus

app = typer.Typer(
    name="artifacts",
    no_args_is_help=True,
    help="Look at, check and tidy the artifacts in a store.",
    rich_markup_mode="rich",
)

StoreFlag = Annotated[str, flag("store", "Object store: s3://bucket/prefix, file:///folder or a path.", metavar="URL")]
JsonFlag = Annotated[bool, typer.Option("--json", help="JSON for scripts instead of a table.")]
RefArgument = Annotated[str, typer.Argument(metavar="REF", help="kind/name, kind/name@v3 or kind/name@latest.")]
DEFAULT_STORE: str = JobOptions.store
_SHOWN = 10  # missing pieces by name


@app.command("ls", epilog="Example: photoz-job artifacts ls --kind model --store s3://bucket/photoz")
def list_artifacts(
    kind: Annotated[str | None, typer.Option(help=f"Only this kind: {', '.join(KINDS)}.")] = None,
    store: StoreFlag = DEFAULT_STORE,
    as_json: JsonFlag = False,
) -> None:
    """List every published version: galaxies, network or images (channels x height x width), sigma_mad, size, digest.

    sigma_mad is a model's on its validation split, a report's on the split that it scores.
    """
    logs.set_up("text")
    if kind is not None and kind not in KINDS:
        raise BadInput(f"--kind {kind!r}: expected one of {', '.join(KINDS)}")
    opened = _existing(store)
    rows = stored.upkeep.listing(opened, kind)
    if as_json:
        _print_json(rows)
        return
    table = _table(
        "artifact", "galaxies", "network or images", "sigma_mad", "created (UTC)", "files", "size", "payload"
    )
    for row in rows:
        sigma_mad = "" if row["sigma_mad"] is None else f"{row['sigma_mad']:.4f} {row['sigma_mad_of'] or ''}".strip()
        table.add_row(
            row["artifact"],
            "" if row["galaxies"] is None else f"{row['galaxies']:,}",
            row["network"] or row["images"] or "",
            sigma_mad,
            row["created_at"][:16].replace("T", " "),
            str(row["files"]),
            _size(row["bytes"]),
            row["payload_sha256"][:12],
        )
    what = f"{kind} artifacts" if kind else "artifacts"
    _print_table(table, f"no {what} in {opened.url}" if not rows else None)


@app.command("show", epilog="Example: photoz-job artifacts show model/mgs@v2 --json | jq .summary")
def show(ref: RefArgument, store: StoreFlag = DEFAULT_STORE, as_json: JsonFlag = False) -> None:
    """Show one artifact: summary, settings, inputs, producer and files."""
    logs.set_up("text")
    artifact = _load(ref, store)
    if as_json:
        _print_json({"artifact": str(artifact.ref)} | artifact.manifest.model_dump(mode="json"))
        return
    manifest = artifact.manifest
    facts = _table(str(artifact.ref), "")
    facts.add_row("created (UTC)", manifest.created_at)
    facts.add_row("payload sha256", manifest.payload_sha256)
    facts.add_row("fingerprint", manifest.fingerprint)
    facts.add_row("made from", ", ".join(made_from.ref for made_from in manifest.inputs) or "nothing")
    facts.add_row("made by", f"photoz {manifest.producer.package_version} on {manifest.producer.host}")
    facts.add_row("command", manifest.producer.command)
    for part, values in (("setting", artifact.settings), ("summary", artifact.summary)):
        for name, value in values.items():
            facts.add_row(f"{part} {name}", value if isinstance(value, str) else json.dumps(value))
    _print_table(facts)
    files = _table("file", "size", "rows", "sha256")
    for entry in artifact.entries:
        files.add_row(entry.name, _size(entry.bytes), "" if entry.rows is None else str(entry.rows), entry.sha256[:12])
    _print_table(files)


@app.command("status", epilog="Example: photoz-job artifacts status shards/mgs")
def status(
    name: Annotated[str, typer.Argument(metavar="NAME", help="kind/name, or a name to look for in every kind.")],
    store: StoreFlag = DEFAULT_STORE,
    as_json: JsonFlag = False,
) -> None:
    """Show which pieces and slices of a running or failed job are done, at work, failed or missing."""
    logs.set_up("text")
    found = stored.status.status_of(_existing(store), name)
    if as_json:
        _print_json([draft.as_dict() for draft in found])
        return
    table = _table("artifact", "fingerprint", "touched", "state", "what")
    for draft in found:
        label = draft.published or draft.artifact
        facts = [(label, draft.fingerprint, _ago(draft.seconds_ago), *fact) for fact in _facts(draft)]
        for row in [*facts[:1], *(("", "", "", *fact[3:]) for fact in facts[1:])]:
            table.add_row(*row)
    _print_table(table)


def _facts(draft: DraftStatus) -> Iterator[tuple[str, str]]:
    """(state, what is in it), the slices of each number of tasks with why they failed."""
    if draft.published:
        yield "published", f"{len(draft.done)} pieces"
        return
    of = "" if draft.pieces is None else f" of {draft.pieces}"
    yield "done", f"{len(draft.done)}{of} pieces"
    if draft.missing is None:
        yield "missing", "not known before task 0 has begun: it records which pieces there are"
    elif draft.missing:
        yield "missing", f"pieces {_some(draft.missing)}"
    if draft.checkpoint_step is not None:
        yield "checkpoint", f"after step {draft.checkpoint_step}"
    groups: dict[tuple[int, str], list[SliceStatus]] = {}
    for one in draft.slices:
        groups.setdefault((one.tasks, one.state), []).append(one)
    for (tasks, state), slices in groups.items():
        yield state, f"{len(slices)} of {tasks} slices: {stored.status.in_ranges(one.task for one in slices)}"
        for one in slices if state not in ("done", "missing") else []:
            code = "" if one.exit_code is None else f"exit code {one.exit_code}: "
            ended = f": {code}{one.message}" if one.message else ""
            lacks = f", without {_some(one.missing)}" if one.missing else ""
            yield "", f"  slice {one.task} on {one.host}, seen {_ago(one.seconds_ago or 0.0)}{lacks}{ended}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more (see --json)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


@app.command("verify", epilog="Example: photoz-job artifacts verify shards/mgs")
def verify(ref: RefArgument, store: StoreFlag = DEFAULT_STORE, as_json: JsonFlag = False) -> None:
    """Read every byte of an artifact and compare it with the manifest; exit code 5 names what differs."""
    logs.set_up("text")
    artifact = _load(ref, store)
    total = stored.upkeep.verify(artifact)
    if as_json:
        _print_json({"artifact": str(artifact.ref), "files": len(artifact.entries), "bytes": total, "ok": True})
    else:
        print(f"{artifact.ref}: {len(artifact.entries)} files, {_size(total)}: every byte is as the manifest says")


@app.command("export", epilog="Example: photoz-job artifacts export predictions/mgs ./redshifts")
def export(
    ref: RefArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or absent folder.")],
    store: StoreFlag = DEFAULT_STORE,
    as_json: JsonFlag = False,
) -> None:
    """Copy an artifact's files into a folder, checked, and its manifest as _manifest.json.

    pd.read_parquet opens a folder of predictions, or of a catalogue.
    """
    logs.set_up("text")
    artifact = _load(ref, store)
    written = stored.upkeep.export(artifact, folder)
    if as_json:
        _print_json({"artifact": str(artifact.ref), "files": [str(path) for path in written]})
    else:
        print(shown(f"{artifact.ref}: {len(written)} files in {folder}"))


@app.command("diff", epilog="Example: photoz-job artifacts diff model/mgs@v1 model/mgs@v2")
def diff(left: RefArgument, right: RefArgument, store: StoreFlag = DEFAULT_STORE, as_json: JsonFlag = False) -> None:
    """Show where two artifacts' settings, inputs, files and summaries differ."""
    logs.set_up("text")
    one, other = _load(left, store), _load(right, store)
    rows = stored.upkeep.differences(one, other)
    if as_json:
        _print_json([{"what": what, str(one.ref): mine, str(other.ref): theirs} for what, mine, theirs in rows])
        return
    table = _table("what", str(one.ref), str(other.ref))
    for row in rows:
        table.add_row(*row)
    _print_table(table, f"{one.ref} and {other.ref} are the same" if not rows else None)


@app.command("rm", epilog="Example: photoz-job artifacts rm predictions/mgs@v1")
def remove(
    ref: RefArgument,
    store: StoreFlag = DEFAULT_STORE,
    force: Annotated[
        bool, typer.Option("--force", help="Even if others are made from it, or its manifest is broken.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove one version; refused (exit code 4) while another artifact names it as its input."""
    logs.set_up("text")
    parsed = Ref.parse(ref)
    if parsed.version is None and not ref.endswith("@latest"):
        raise BadInput(f"ref {ref!r}: say which version to remove, such as {ref}@v1 or {ref}@latest")
    opened = stored.open_store(store)
    try:
        artifact = stored.load(opened, parsed)
    except BadFormat:
        if not force or parsed.version is None:
            raise
        stored.upkeep.remove_unreadable(opened, parsed)
        removed, deleted, why = parsed, None, "its manifest can't be read"
    else:
        removed, deleted, why = artifact.ref, stored.upkeep.remove(artifact, force), "a job is at work there"
    if as_json:
        _print_json({"artifact": str(removed), "removed": True, "files": deleted})
    else:
        done = f"its files are left to gc: {why}" if deleted is None else f"{deleted} files deleted"
        print(f"{removed}: removed, {done}")


@app.command("gc", epilog="Example: photoz-job artifacts gc --older-than 7d --yes")
def collect_garbage(
    store: StoreFlag = DEFAULT_STORE,
    older_than: Annotated[str, typer.Option(metavar="TIME", help="Only what nothing has touched for so long.")] = "1d",
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without this, only show it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show, and with --yes delete, what jobs that died or finished have left and nothing needs."""
    logs.set_up("text")
    opened, age_s = _existing(store), parse_duration(older_than)
    found = stored.garbage.garbage(opened, age_s)
    if yes:
        found = stored.garbage.delete_garbage(opened, found, age_s)
    total = sum(item.bytes for item in found)
    if as_json:
        items = [{"key": item.key, "bytes": item.bytes, "reason": item.reason} for item in found]
        _print_json({"deleted": yes, "bytes": total, "objects": items})
        return
    table = _table("object", "size", "why")
    for item in found:
        table.add_row(item.key, _size(item.bytes), item.reason)
    _print_table(table, "nothing to delete" if not found else None)
    if found:
        done = "deleted" if yes else "would be deleted; add --yes to delete them"
        print(f"{len(found)} objects, {_size(total)}: {done}")


def _existing(url: str) -> Store:
    """The store; MissingArtifact where it is a folder that does not exist."""
    store = stored.open_store(url)
    stored.artifact.check_there(store)
    return store


def _load(ref: str, store: str) -> Artifact:
    return stored.load(stored.open_store(store), Ref.parse(ref))


class _SafeTable(Table):
    """Shows texts of manifests, which anyone may have written, without their secrets and control characters."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(shown(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def _table(*headings: str) -> Table:
    table = _SafeTable(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        justify: Literal["left", "right"] = "right" if heading in ("galaxies", "size") else "left"
        table.add_column(heading, overflow="fold", no_wrap=number == 0, justify=justify)
    return table


def _print_table(table: Table, instead: str | None = None) -> None:
    # A pipe has no width: give it enough that few lines are folded.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(shown(instead) if instead else table, highlight=False, markup=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
