"""Receipts: what finished pieces and slices leave beside the payload, for a restart and for the merge."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from photoz.artifacts.manifest import Count, FileEntry, check_inside, first_problem
from photoz.artifacts.store import Store
from photoz.errors import BadFormat

Receipt = TypeVar("Receipt", "PieceReceipt", "SliceReceipt")


class PieceReceipt(BaseModel):
    """A finished piece of work: the payload and stage files it wrote, and facts that the merge step needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    piece: str
    files: tuple[FileEntry, ...] = ()
    staged: tuple[FileEntry, ...] = ()
    facts: dict[str, Any] = {}

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """All files that the receipt vouches for."""
        return self.files + self.staged


class SliceReceipt(BaseModel):
    """A finished slice: `index` of `count`, and its pieces."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: Count
    count: Count
    pieces: tuple[PieceReceipt, ...]

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """All files that the receipt vouches for."""
        return tuple(entry for piece in self.pieces for entry in piece.entries)


def encode(receipt: PieceReceipt | SliceReceipt) -> bytes:
    """The receipt's bytes in the store."""
    return receipt.model_dump_json().encode()


def read_receipt(store: Store, key: str, folder: str, kind: type[Receipt]) -> Receipt:
    """The receipt stored under `key`, whose files lie in `folder`. Raises BadFormat if it is none."""
    try:
        receipt = kind.model_validate_json(store.get(key))
        check_inside(folder, receipt.entries)
    except (ValidationError, ValueError) as error:
        raise BadFormat(
            f"{store.url}: {key}: {first_problem(error)}; no receipt of this version; delete it and run the job again"
        ) from None
    return receipt
