"""The manifest (format version 1): what a published version is made of, and where it came from."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from photoz.artifacts.refs import (
    EXPORTED_MANIFEST,
    FINGERPRINT_PATTERN,
    MANIFEST,
    NAME_PATTERN,
    PINNED_REF_PATTERN,
    data_prefix,
    name_in,
)
from photoz.errors import BadFormat, BadInput

FORMAT_VERSION = 1
_SURROGATE = re.compile(rb"\\ud[89a-f]", re.IGNORECASE)

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]


class FileEntry(BaseModel):
    """One payload file. `path` is relative to the store; volatile files hold wall-clock figures."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    path: str
    bytes: Count
    sha256: Sha256
    rows: Count | None = None
    volatile: bool = False

    @property
    def name(self) -> str:
        """Path inside the payload: what comes after …/data/<fingerprint>/ (and again-…/, see refs.again_name)."""
        return name_in("".join(f"{part}/" for part in self.path.split("/")[:4]), self.path)


class Producer(BaseModel):
    """Which program, on which machine, made the artifact."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    package: str
    package_version: str
    commit: str | None
    image: str | None
    command: str
    host: str
    scheduler: dict[str, str]


class Input(BaseModel):
    """An artifact that was read, pinned by digest."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ref: Annotated[str, StringConstraints(pattern=rf"^{PINNED_REF_PATTERN}$")]
    manifest_sha256: Sha256
    payload_sha256: Sha256


class Manifest(BaseModel):
    """The commit of one version; written last and once. No manifest, no artifact."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1]
    kind: Literal["catalog", "shards", "model", "predictions", "report"]
    name: Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN}$")]
    version: Annotated[int, Field(ge=1, lt=10**9)]
    fingerprint: Annotated[str, StringConstraints(pattern=rf"^{FINGERPRINT_PATTERN}$")]
    created_at: str
    producer: Producer
    settings: dict[str, Any]
    inputs: tuple[Input, ...]
    payload_sha256: Sha256
    files: tuple[FileEntry, ...]
    summary: dict[str, Any]

    def encode(self) -> bytes:
        """The manifest's bytes in the store: JSON that a person can read."""
        return json.dumps(self.model_dump(), indent=1, sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, data: bytes, source: str) -> "Manifest":
        """Read a manifest found at `source`; raise BadFormat if it is broken, inconsistent or of a newer format."""
        try:
            document = json.loads(data, parse_constant=_refuse_constant)
            if _SURROGATE.search(data):
                json.dumps(document, ensure_ascii=False).encode()  # half a character can't be written again
        except (ValueError, RecursionError) as error:
            raise BadFormat(f"{source}: not JSON ({error}); restore a copy, or `artifacts rm --force` it") from None
        found = document.get("format_version") if isinstance(document, dict) else None
        if isinstance(found, int) and found > FORMAT_VERSION:
            raise BadFormat(
                f"{source}: format version {found}, this photoz reads up to {FORMAT_VERSION}; use a newer photoz"
            )
        try:
            manifest = cls.model_validate(document)
            check_inside(data_prefix(manifest.kind, manifest.name, manifest.fingerprint), manifest.files)
        except (ValidationError, ValueError) as error:
            raise BadFormat(f"{source}: {first_problem(error)}; expected a format version 1 manifest") from None
        if payload_digest(manifest.files) != manifest.payload_sha256:
            raise BadFormat(f"{source}: payload_sha256 does not match its own list of files; the manifest was altered")
        return manifest


def check_inside(folder: str, files: Iterable[FileEntry]) -> None:
    """Raise ValueError unless every file lies in `folder`, under a plain name that no other has."""
    names: set[str] = set()
    for entry in files:
        name = name_in(folder, entry.path)
        if name in names:
            raise ValueError(f"file {name!r} is listed twice")
        names.add(name)
    for name in names:
        parents = map(str, PurePosixPath(name).parents) if "/" in name else ()
        if name in (MANIFEST, EXPORTED_MANIFEST) or not names.isdisjoint(parents):
            raise ValueError(f"file {name!r} is in the way of another")


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"holds {constant}")


def first_problem(error: ValueError) -> str:
    """What is wrong with a document, in a few words."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}"[:300]
    return str(error)[:300]


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """The one byte string for a JSON value: sorted keys, no spaces, no NaN. BadInput for text that is no UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        name = text[text.rfind('"', 0, error.start) + 1 : text.find('"', error.start)]
        raise BadInput(f"{name!r} holds bytes that are no UTF-8, which can't be recorded; rename it") from None


def fingerprint_of(kind: str, recipe: int, settings: dict[str, Any], input_digests: Iterable[str]) -> str:
    """16 hex digits that stand for what decides an artifact's bytes."""
    decides = [kind, FORMAT_VERSION, recipe, settings, list(input_digests)]
    return sha256_hex(canonical_json(decides))[:16]


def payload_digest(files: Iterable[FileEntry]) -> str:
    """SHA-256 over the sorted names and digests of the files that are not volatile."""
    lines = sorted(f"{entry.name}\0{entry.sha256}\n" for entry in files if not entry.volatile)
    return sha256_hex("".join(lines).encode())
