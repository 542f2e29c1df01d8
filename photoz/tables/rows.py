"""The rows of a table that are used, by their numbers in the file, and its columns as numbers or text."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from photoz.errors import BadInput
from photoz.tables.raw_table import RawTable

_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(inf|infinity|nan)$", re.ASCII | re.IGNORECASE)
# Excel's ways to keep a long number as text: ="123" and '123.
_EXCEL = r"""^\s*(?:="([^"]*)"|['‘’]([0-9.eE+-]+)['’]?)\s*$"""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TableRows:
    """A table's columns, cut down to the rows that `--where` keeps."""

    path: Path
    raw: RawTable
    kept: npt.NDArray[np.int64] | None = None
    last: dict[str, pa.Array] = field(default_factory=dict, compare=False)

    @property
    def rows(self) -> int:
        """Number of kept rows."""
        return self.raw.rows if self.kept is None else len(self.kept)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, in the file's order."""
        return self.raw.names

    def column(self, name: str) -> pa.Array:
        """The column's kept rows; BadInput names the column if it can't be read."""
        if name not in self.last:  # decoding takes time: the checks of a column come one after another
            column = self.raw.column(name)
            self.last.clear()
            self.last[name] = column if self.kept is None else column.take(pa.array(self.kept))
        return self.last[name]

    def number(self, index: int) -> int:
        """What people call the row: counted in the file, from 1."""
        return int(index if self.kept is None else self.kept[index]) + 1

    def refusal(self, message: str) -> BadInput:
        """The error that says which table is meant."""
        return BadInput(f"--table {self.path}: {message}")

    def text(self, name: str) -> pa.Array:
        """The column as text without spaces around it; BadInput if it holds lists or the like."""
        return as_text(self.column(name), self, name)

    def floats(self, name: str, expected: str = "a number") -> pa.Array:
        """The column as float64, null for NaN; BadInput names the first row without a number."""
        column = self.column(name)
        values = as_floats(column)
        if values is None:
            if not is_text(column):
                raise self.refusal(f"column {name!r} holds {column.type}; expected numbers")
            texts = without_excel(as_text(column, self, name)).to_pylist()
            row = next((row for row, text in enumerate(texts) if text and not _NUMBER.match(text)), 0)
            hint = ", with a decimal point" if re.fullmatch(r"[+-]?\d+,\d+", str(texts[row])) else ""
            raise self.refusal(
                f"{name} = {str(texts[row])[:60]!r} in row {self.number(row)}; expected {expected}{hint}"
            )
        return values


def is_text(column: pa.Array) -> bool:
    """Whether it holds text, also as categories."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    return any(test(kind) for test in (*tests, pa.types.is_large_binary, pa.types.is_fixed_size_binary))


def holds_numbers(column: pa.Array) -> bool:
    """Whether at least one value is a number, so that others that are none are mistakes."""
    if as_floats(column) is not None:
        return True
    return is_text(column) and any(map(_NUMBER.match, filter(None, column.cast(pa.string()).to_pylist())))


def as_text(column: pa.Array, rows: TableRows, name: str) -> pa.Array:
    """Text without spaces around it."""
    try:
        return pc.utf8_trim_whitespace(column.cast(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise rows.refusal(f"column {name!r} holds {column.type}; expected text or numbers") from None


def without_excel(column: pa.Array) -> pa.Array:
    """Text without the apostrophe or formula by which Excel keeps a number as text."""
    return pc.replace_substring_regex(column, _EXCEL, r"\1\2")


def as_floats(column: pa.Array) -> pa.Array | None:
    """Float64 with null for NaN and for empty text; None if a value is not a number."""
    if pa.types.is_boolean(column.type) or pa.types.is_temporal(column.type) or pa.types.is_nested(column.type):
        return None
    try:
        if is_text(column):
            column = pc.utf8_trim_whitespace(column.cast(pa.string()))
            if pc.any(pc.match_substring_regex(column, r"^(=\"|['‘’])")).as_py():
                column = without_excel(column)
            empty = pc.is_in(pc.utf8_lower(column), pa.array(["", "nan", "null", "none", "n/a", "na", "--"]))
            column = pc.if_else(empty, pa.scalar(None, pa.string()), column)
        values = column.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)


def to_numpy(column: pa.Array) -> Floats:
    """NaN where null."""
    values: Floats = column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return values


def from_numpy(values: Floats) -> pa.Array:
    """Null where NaN."""
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def spelt_as(values: Floats, pattern: re.Pattern[str], least: float) -> npt.NDArray[np.bool_]:
    """Which values match when they are written with seven digits, as many as float32 has: -9.999, 99, 1e+20.

    Only negative ones and those from `least` on are looked at.
    """
    distinct = np.unique(values[(values < 0) | (values >= least)])
    return np.isin(values, [value for value in distinct if pattern.fullmatch(f"{value:.7g}")])


def examples(values: Iterable[float]) -> str:
    """Up to four of the values, each once, for a message."""
    distinct = list(dict.fromkeys(f"{value:.7g}" for value in values))
    return ", ".join(distinct[:4]) + (" …" if len(distinct) > 4 else "")
