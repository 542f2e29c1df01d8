"""Refs such as `shards/mgs@v3`, and every key of the store layout, format version 1. No IO here."""

import difflib
import re
from dataclasses import dataclass

from photoz.errors import BadInput

KINDS = ("catalog", "shards", "model", "predictions", "report")
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}"
MANIFEST = "manifest.json"
EXPORTED_MANIFEST = "_manifest.json"  # beside the files: readers of Parquet folders pass over what begins with _ or .
CARD = "card.md"  # of a model, for people
PINNED_REF_PATTERN = rf"(?:{'|'.join(KINDS)})/{NAME_PATTERN}@v[1-9][0-9]{{0,8}}"
FINGERPRINT_PATTERN = r"[0-9a-f]{16}"

_NAME_RULE = "1 to 63 of a-z, 0-9, '.', '_', '-', starting with a letter or digit"

_REF = re.compile(rf"(?:(?P<kind>[a-z]+)/)?(?P<name>{NAME_PATTERN})(?:@(?P<version>latest|v[1-9][0-9]{{0,8}}))?")
_MANIFEST_KEY = re.compile(rf"(?P<kind>[a-z]+)/(?P<name>{NAME_PATTERN})/v(?P<version>[1-9][0-9]{{0,8}})/manifest\.json")
_FINGERPRINT_KEY = re.compile(
    rf"[^/]+/[^/]+/v(?P<version>[1-9][0-9]{{0,8}})/fingerprint-(?P<fingerprint>{FINGERPRINT_PATTERN})"
)
_AGAIN = re.compile(r"again-[0-9a-f]{16}/")
CLAIMS, CLEARING = "parts/claims/", "parts/clearing/"  # below the data folder; see claims.py
FINISHED, FAILED, PIECES = "parts/finished/", "parts/failed/", "parts/pieces/"
PLAN = "parts/plan.json"
# One path inside a payload: folders allowed, nothing hidden, nothing that climbs out.
_PAYLOAD_NAME = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}/){0,4}[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Ref:
    """Names an artifact: kind, name and version; version None means the latest."""

    kind: str
    name: str
    version: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"artifact kind {self.kind!r}: expected one of {', '.join(KINDS)}")
        check_name(self.name)
        if self.version is not None and self.version < 1:
            raise BadInput(f"artifact version {self.version}: versions start at v1")

    @classmethod
    def parse(cls, text: str, kind: str | None = None) -> "Ref":
        """Read `kind/name@v3`, `kind/name@latest` or `kind/name`; `name` alone where `kind` is given.

        Raises BadInput if the text is no ref, or one of another kind than asked for.
        """
        match = _REF.fullmatch(text)
        found = (match["kind"] or kind) if match else None
        if not match or found is None or found not in KINDS:
            raise BadInput(f"ref {text!r}: {_expected(text, kind)}")
        if kind is not None and found != kind:
            raise BadInput(f"ref {text!r}: expected an artifact of kind {kind}, such as {kind}/{match['name']}")
        version = match["version"]
        return cls(found, match["name"], int(version[1:]) if version and version != "latest" else None)

    def at(self, version: int) -> "Ref":
        """The same artifact at a given version."""
        return Ref(self.kind, self.name, version)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" + (f"@v{self.version}" if self.version else "")


def _expected(text: str, kind: str | None) -> str:
    """What a ref looks like, and the one that was probably meant where that is a ref."""
    before, _, version = text.strip().lower().partition("@")
    given, slash, name = before.partition("/") if "/" in before else ("", "", before)
    if not slash and kind is None:
        example = f"model/{text}" if _REF.fullmatch(text) else "model/mgs@v3"
        return f"expected kind/name, such as {example}; the kinds are {', '.join(KINDS)}"
    close = difflib.get_close_matches(given, KINDS, 1) if slash else [kind]
    if not close:
        return f"{given!r} is no kind; expected one of {', '.join(KINDS)}"
    if kind not in (None, *close):
        return f"expected an artifact of kind {kind}, such as {kind}/mgs@v3"
    if not re.fullmatch(NAME_PATTERN, name):
        return f"{name!r} is no name: {_NAME_RULE}; expected {close[0]}/name, {close[0]}/name@v3 or …@latest"
    number = re.fullmatch(r"v?0*([1-9][0-9]{0,8})", version)
    ending = f"@v{number[1]}" if number else "@latest" if version == "vlatest" else ""
    if version and not ending and version != "latest":
        return f"{version!r} is no version: expected v1, v2, …, or latest"
    return f"did you mean {close[0]}/{name}{ending or (version and '@latest')}?"


def check_name(name: str) -> str:
    """Return `name`; raise BadInput if it can't name an artifact."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise BadInput(f"artifact name {name!r}: expected {_NAME_RULE}")
    return name


def check_payload_name(name: str) -> str:
    """Return `name`; raise ValueError if it could leave its folder or hide in it."""
    if not _PAYLOAD_NAME.fullmatch(name):
        raise ValueError(f"payload path {name!r} is not a plain relative path")
    return name


def artifact_prefix(ref: Ref) -> str:
    """Everything of one kind and name."""
    return f"{ref.kind}/{ref.name}/"


def manifest_key(ref: Ref) -> str:
    """The commit of one version."""
    return f"{ref.kind}/{ref.name}/v{ref.version}/manifest.json"


def removed_key(ref: Ref) -> str:
    """Marks a version as removed, so that its number is never handed out again."""
    return f"{ref.kind}/{ref.name}/v{ref.version}/removed.json"


def fingerprint_key(ref: Ref, fingerprint: str) -> str:
    """Says which fingerprint a published version has, so that a listing tells it without its manifest."""
    return f"{ref.kind}/{ref.name}/v{ref.version}/fingerprint-{fingerprint}"


def marked_fingerprint(key: str) -> tuple[int, str] | None:
    """(version, fingerprint) of a `fingerprint_key`; None for any other key."""
    match = _FINGERPRINT_KEY.fullmatch(key)
    return (int(match["version"]), match["fingerprint"]) if match else None


def manifest_ref(key: str) -> Ref | None:
    """The ref whose manifest (or removal mark) `key` is; None for any other key."""
    match = _MANIFEST_KEY.fullmatch(
        key.removesuffix("removed.json") + "manifest.json" if key.endswith("removed.json") else key
    )
    if not match or match["kind"] not in KINDS:
        return None
    return Ref(match["kind"], match["name"], int(match["version"]))


def data_prefix(kind: str, name: str, fingerprint: str) -> str:
    """Folder of one fingerprint's payload, receipts, stage and state."""
    return f"{kind}/{name}/data/{fingerprint}/"


def again_name(name: str, sha256: str) -> str:
    """Where a file goes whose own place is taken by other bytes; its name stays what it is."""
    return f"again-{sha256[:16]}/{name}"


def name_in(folder: str, key: str) -> str:
    """The name of a file of a data folder; ValueError if its key is outside, or could hide or climb out."""
    if not key.startswith(folder):
        raise ValueError(f"file {key!r} is outside of {folder}")
    relative = key.removeprefix(folder)
    return check_payload_name(_AGAIN.sub("", relative, count=1) if _AGAIN.match(relative) else relative)


def slice_receipt_name(index: int, count: int) -> str:
    """Receipt of slice `index` of `count`, relative to the data folder."""
    return f"parts/{index:05d}-of-{count:05d}.json"


def piece_receipt_name(piece: str) -> str:
    """Receipt of one piece of work, relative to the data folder."""
    return f"{PIECES}{piece}.json"


def finished_folder(count: int, level: int, group: int) -> str:
    """Where the marks of one group of `count` slices are, relative to the data folder; see finished.py."""
    return f"{FINISHED}{count:05d}/{level}/{group:05d}/"


def finished_name(count: int, level: int, group: int, node: int) -> str:
    """The mark of one slice, or of one group of the level below, relative to the data folder."""
    return f"{finished_folder(count, level, group)}{node:05d}.json"


def failed_name(index: int, count: int) -> str:
    """Why slice `index` of `count` ended without being done, relative to the data folder."""
    return f"{FAILED}{index:05d}-of-{count:05d}.json"


def stage_name(name: str) -> str:
    """An intermediate file for the merge step, relative to the data folder."""
    return f"stage/{name}"


def state_name(name: str) -> str:
    """A checkpoint, relative to the data folder."""
    return f"state/{name}"


def is_payload(relative: str) -> bool:
    """Whether a path relative to a data folder belongs to the payload rather than to the work on it."""
    return not relative.startswith(("parts/", "stage/", "state/"))
