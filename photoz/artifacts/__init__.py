"""Versioned artifacts in an object store: the only thing that jobs share."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photoz.artifacts import artifact, garbage, status, upkeep
    from photoz.artifacts.artifact import Artifact, load, refs
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
    "artifact",
    "garbage",
    "load",
    "open_store",
    "refs",
    "status",
    "upkeep",
]

_MODULES = {
    "artifact": ("Artifact", "load", "refs"),
    "draft": ("Destination", "Draft", "Outcome"),
    "manifest": ("FileEntry", "Manifest"),
    "receipts": ("PieceReceipt",),
    "refs": ("KINDS", "Ref"),
    "store": ("Store", "open_store"),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: --help needs none, and pyarrow and pydantic take half a second."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
