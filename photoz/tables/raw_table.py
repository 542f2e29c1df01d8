"""A table before anyone asks what its columns mean: names and units at once, values when they are asked for."""

import csv
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io.votable.exceptions import VOWarning
from numpy.typing import NDArray

from photoz.artifacts.parquet import BROKEN
from photoz.errors import BadInput

# What the readers trip over in broken files: astropy has no one error for them.
FAULTS = (
    *BROKEN, ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError, VOWarning, csv.Error,
    struct.error,
)  # fmt: skip
LARGE_ARRAY = 64  # values in a cell: more are pixels or a spectrum rather than magnitudes of some bands


@dataclass(frozen=True)
class RawTable:
    """A table's columns by name, each decoded when it is asked for, and the units that the file states."""

    path: Path
    names: tuple[str, ...]  # in file order, readable or not; a name can stand twice
    rows: int
    units: Mapping[str, str]  # of names that stand once
    states_units: bool  # the format has a place for units: FITS, VOTable and ECSV
    decode: Callable[[int], pa.Array]  # by the column's place
    arrays: Mapping[str, str] = field(default_factory=dict)  # {column: shape} of those with an image in each row
    label: str = ""  # the table's own name, of a file that can hold several

    def column(self, name: str) -> pa.Array:
        """The column's values; BadInput names it if it can't be read, or if its name stands twice."""
        if self.names.count(name) > 1:
            raise BadInput(
                f"--table {self.path}: column {name!r} is there {self.names.count(name)} times; "
                "expected it once: rename or remove the others"
            )
        try:
            values = self.decode(self.names.index(name))
            if len(values) != self.rows:  # each column of a broken Parquet file has a length of its own
                raise ValueError(f"has {len(values)} values in a table of {self.rows} rows")
            return values
        except FAULTS as error:
            raise BadInput(f"--table {self.path}: column {name!r} {reason(error)}") from None


def units_of(stated: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """{name: unit} from each column's name and unit; a name that stands twice has none, whichever is meant."""
    pairs = list(stated)
    counts = Counter(name for name, _ in pairs)
    return {name: unit for name, unit in pairs if unit and counts[name] == 1}


def reason(error: Exception) -> str:
    """The error's first line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def to_arrow(values: NDArray[np.generic], null: NDArray[np.bool_] | bool) -> pa.Array:
    """One value a row, null where `null`; texts from Python strings, whichever byte order for numbers."""
    mask = np.broadcast_to(null, values.shape)
    if values.dtype.kind in "OU":
        texts = [None if hidden or not value else str(value) for value, hidden in zip(values, mask, strict=True)]
        return pa.array(texts, pa.string())
    return pa.array(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))), mask=mask)
