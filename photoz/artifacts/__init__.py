"""Versioned artifacts in an object store: the only thing that jobs share."""

from photoz.artifacts.artifact import Artifact, load, parse_duration, refs
from photoz.artifacts.draft import Destination, Draft, Outcome
from photoz.artifacts.manifest import FileEntry, Manifest
from photoz.artifacts.receipts import PieceReceipt
from photoz.artifacts.refs import KINDS, Ref
from photoz.artifacts.store import Store, open_store

__all__ = [
    "KINDS",
    "Artifact",
    "Destination",
    "Draft",
    "FileEntry",
    "Manifest",
    "Outcome",
    "PieceReceipt",
    "Ref",
    "Store",
    "load",
    "open_store",
    "parse_duration",
    "refs",
]
