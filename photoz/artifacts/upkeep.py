"""Looking after a store: verify, export, compare, remove, and find what nothing refers to."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from photoz import progress
from photoz.artifacts.artifact import Artifact, check, load, refs
from photoz.artifacts.claims import DEAD_AFTER_S, clear
from photoz.artifacts.file_store import DISK_FULL
from photoz.artifacts.garbage import Published
from photoz.artifacts.manifest import Manifest, canonical_json
from photoz.artifacts.refs import CARD, EXPORTED_MANIFEST, Ref, data_prefix, fingerprint_key, manifest_key, removed_key
from photoz.artifacts.store import Store, StoredObject
from photoz.errors import BadFormat, BadInput, Conflict, MissingArtifact, PhotozError, TryAgain

log = logging.getLogger("photoz.artifacts")


def verify(artifact: Artifact) -> int:
    """Read every byte of the payload and return how many there were.

    Raises BadFormat naming every file that is missing, altered or of another length.
    """
    problems = []
    total = sum(entry.bytes for entry in artifact.entries)
    with progress.stage(f"verify {artifact.ref}", total, "bytes") as bar:
        for entry in artifact.entries:
            problem = check(artifact.store, entry)
            if problem:
                problems.append(f"{entry.path}: {problem}")
            bar.advance(entry.bytes)
    if problems:
        raise BadFormat(f"{artifact.ref}: {'; '.join(problems)}; restore from a copy, or make a new version")
    return total


def export(artifact: Artifact, folder: Path) -> list[Path]:
    """Copy the payload into `folder`, which must be empty or absent, and the manifest as `_manifest.json`.

    A model's card gets one line more at its head, which names the version. Returns the files written. Raises what
    Artifact.fetch raises for a file that is missing or altered; a file that is written whole is right.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput(f"{folder}: expected an empty or absent folder to export to")
        return _export(artifact, folder)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise TryAgain(f"{folder}: {error.strerror}; free some space, empty the folder and export again") from None
        raise BadInput(f"{folder}: {error.strerror}; name a folder that can be written") from None


def _export(artifact: Artifact, folder: Path) -> list[Path]:
    written = []
    with progress.stage(f"export {artifact.ref}", len(artifact.entries), "files") as bar:
        for entry in artifact.entries:
            target = folder / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with target.open("wb") as file:
                    artifact.fetch(entry, file)
            except PhotozError:
                target.unlink()
                raise
            if artifact.ref.kind == "model" and entry.name == CARD:
                target.write_bytes(f"*This is {artifact.ref}.*\n\n".encode() + target.read_bytes())
            written.append(target)
            bar.advance()
    written.append(folder / EXPORTED_MANIFEST)
    written[-1].write_bytes(artifact.manifest.encode())
    return written


def differences(left: Artifact, right: Artifact) -> list[tuple[str, str, str]]:
    """(what, left value, right value) wherever two artifacts' settings, inputs, files and summaries differ."""
    mine, theirs = _facts(left), _facts(right)
    return [
        (what, mine.get(what, "–"), theirs.get(what, "–"))
        for what in sorted(mine.keys() | theirs.keys())
        if mine.get(what) != theirs.get(what)
    ]


def _facts(artifact: Artifact) -> dict[str, str]:
    facts = {"payload_sha256": artifact.payload_sha256, "fingerprint": artifact.manifest.fingerprint}
    for part, values in (("settings", artifact.settings), ("summary", artifact.summary)):
        facts |= {f"{part}.{name}": _text(value) for name, value in values.items()}
    facts |= {f"input {made_from.ref.split('/')[0]}": made_from.ref for made_from in artifact.manifest.inputs}
    facts |= {f"file {entry.name}": entry.sha256[:12] for entry in artifact.entries if not entry.volatile}
    return facts


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def users_of(store: Store, ref: Ref) -> list[Ref]:
    """The artifacts that name `ref` as an input."""
    return [
        artifact.ref
        for artifact in _readable(store, None)
        if any(made_from.ref == str(ref) for made_from in artifact.manifest.inputs)
    ]


def _readable(store: Store, kind: str | None) -> Iterator[Artifact]:
    """Every published version; one that can't be read is passed over with a warning."""
    for ref in refs(store, kind):
        try:
            yield load(store, ref)
        except MissingArtifact:
            continue  # removed since it was listed
        except BadFormat as error:
            log.warning("%s", error)


def remove_unreadable(store: Store, ref: Ref) -> None:
    """Remove a version whose manifest can't be read; what it was made of is not known, and left to gc."""
    _unpublish(store, ref, {})


def _unpublish(store: Store, ref: Ref, why: dict[str, str]) -> None:
    store.create(removed_key(ref), canonical_json({"removed": str(ref)} | why))
    store.delete(manifest_key(ref))
    for mark in list(store.list(fingerprint_key(ref, ""))):
        store.delete(mark.key)


def remove(artifact: Artifact, force: bool = False) -> int | None:
    """Remove one version, and its payload unless another version shares it; returns the number of files deleted.

    None where a job is at work in the payload's folder: the files are then left to gc. Raises Conflict while another
    artifact names this one as input, unless forced. Its number is never used again.
    """
    store, ref = artifact.store, artifact.ref
    users = users_of(store, ref)
    if users and not force:
        raise Conflict(f"{ref}: is the input of {', '.join(map(str, users))}; remove those first, or use --force")
    _unpublish(store, ref, {"payload_sha256": artifact.payload_sha256})
    fingerprint = artifact.manifest.fingerprint

    def unneeded(items: Sequence[StoredObject]) -> list[str]:
        # Looked up while no job can begin there: one that has published since needs the files.
        shared = Published(store, ref).paths_now(fingerprint) is not None
        return [] if shared else [item.key for item in items]

    cleared = clear(store, data_prefix(ref.kind, ref.name, fingerprint), unneeded, DEAD_AFTER_S)
    return None if cleared is None else len(cleared)


def listing(store: Store, kind: str | None = None) -> list[dict[str, Any]]:
    """One row a published version: ref, what is in it (see `headline`), creation time, files, bytes and digests."""
    return [
        {
            "artifact": str(artifact.ref),
            **headline(artifact.manifest),
            "created_at": artifact.manifest.created_at,
            "files": len(artifact.entries),
            "bytes": sum(entry.bytes for entry in artifact.entries),
            "payload_sha256": artifact.payload_sha256,
            "fingerprint": artifact.manifest.fingerprint,
            "photoz": artifact.manifest.producer.package_version,
        }
        for artifact in _readable(store, kind)
    ]


def headline(manifest: Manifest) -> dict[str, str | int | float | None]:
    """Galaxies, network, images and sigma_mad (and the split that it is of); None where the summary has no such thing.

    A model's galaxies are those trained on, shards' those with an image, a report's those scored.
    """
    summary = manifest.summary

    def found(*path: str) -> Any:
        value: Any = summary
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    count = {
        "catalog": found("rows"),
        "shards": found("samples"),
        "model": found("galaxies", "train"),
        "predictions": found("galaxies"),
        "report": found("scored"),
    }[manifest.kind]
    network = found("model")
    sides = [found("image", side) for side in ("channels", "height", "width")]
    sigma_mad = found("validation", "val_sigma_mad") if manifest.kind == "model" else found("sigma_mad")
    split = "val" if manifest.kind == "model" else found("split")
    known = isinstance(sigma_mad, int | float)
    return {
        "galaxies": count if isinstance(count, int) else None,
        "network": network if isinstance(network, str) else None,
        "images": " x ".join(map(str, sides)) if all(isinstance(side, int) for side in sides) else None,
        "sigma_mad": sigma_mad if known else None,
        "sigma_mad_of": split if known and isinstance(split, str) else None,
    }
