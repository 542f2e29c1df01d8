"""Object ids of users' tables: text or whole numbers, each once, and never passed through floating point."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from photoz.errors import BadInput
from photoz.survey.raw_table import RawTable

LARGEST_EXACT_FLOAT = 2**53
_ID_NAMES = re.compile(r"^(spec|photo|source|target|object|obj)?_?(obj|object)?_?id$", re.IGNORECASE)
_SCIENTIFIC = re.compile(r"^[+-]?\d+(\.\d*)?[eE]\+?\d+$")
_LONG_DECIMAL = re.compile(r"^\d{16,}\.0*$")
_DAMAGE = (
    "the ids have been rounded, as spreadsheets and float64 columns do, and can't be told apart; "
    "expected whole ids, all digits: export the table again with ids as text or 64-bit integers"
)


def checked_ids(path: Path, name: str, column: pa.Array) -> pa.Array:
    """The ids as text; BadInput if any is missing, rounded or there twice."""
    _refuse_if_rounded(path, name, column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
        if not pc.all(pc.equal(column, pc.round(column))).as_py():
            raise BadInput(f"--table {path}: {name} holds fractions; expected text or whole numbers as ids")
        column = column.cast(pa.int64())
    ids: list[str | None] = as_text(path, name, column).to_pylist()
    empty = [row for row, text in enumerate(ids) if not text]
    if empty:
        raise BadInput(f"--table {path}: {name} is empty in row {empty[0] + 1} ({len(empty)} in all); expected an id")
    repeated = [(text, count) for text, count in Counter(ids).most_common() if count > 1]
    if repeated:
        text, count = repeated[0]
        raise BadInput(
            f"--table {path}: {name} = {text!r} is there {count} times ({len(repeated)} ids repeat); "
            "expected each galaxy once: remove the repeats"
        )
    return pa.array(ids, pa.string())


def as_text(path: Path, name: str, column: pa.Array) -> pa.Array:
    """The column as text without spaces around it; BadInput if it holds lists or the like."""
    try:
        return pc.utf8_trim_whitespace(column.cast(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise BadInput(f"--table {path}: column {name!r} holds {column.type}; expected text or numbers") from None


def refuse_rounded_ids(path: Path, raw: RawTable) -> None:
    """BadInput if a column that is an id by its name has been rounded, even if nobody asked for it.

    A table damaged there can't be joined back to its survey, and has usually lost more than the ids.
    """
    for name in filter(_ID_NAMES.match, raw.names):
        try:
            column = raw.column(name)
        except BadInput:  # nobody asked for it: that it can't be read refuses nothing
            continue
        _refuse_if_rounded(path, name, column)


def _refuse_if_rounded(path: Path, name: str, column: pa.Array) -> None:
    example = _rounded_example(column)
    if example is not None:
        raise BadInput(f"--table {path}: {name} = {example}: {_DAMAGE}")


def _rounded_example(column: pa.Array) -> str | None:
    if pa.types.is_floating(column.type):
        large = pc.filter(column, pc.greater(pc.abs(column), float(LARGEST_EXACT_FLOAT)))
        return format(float(large[0].as_py()), "g") if len(large) else None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts: list[str] = [text for text in column.to_pylist() if text]
        odd = next((text for text in texts if _SCIENTIFIC.match(text) or _LONG_DECIMAL.match(text)), None)
        if odd is not None:
            return odd
        numbers = [int(text) for text in texts if text.isascii() and text.isdigit()]
    elif pa.types.is_integer(column.type):
        numbers = [number for number in column.to_pylist() if number is not None]
    else:
        return None
    return _through_float(numbers)


def _through_float(numbers: list[int]) -> str | None:
    """An example, if all large numbers end in zeros that only rounding to 3 to 9 digits or to float64 leaves."""
    large = [number for number in numbers if LARGEST_EXACT_FLOAT < number < 2**64]
    if len(large) >= 3 and all(number % 10**9 == 0 for number in large):
        return str(large[0])
    # SDSS photometric ids: bits 48 to 58 hold the rerun, 301. Their last 8 bits are zero by chance in 1 of 256.
    sdss = np.array([number for number in large if number >> 48 & 0x7FF == 301 and number >> 59 in (1, 2)], np.uint64)
    if len(sdss) >= 3 and not np.any(sdss % np.uint64(256)):
        return str(sdss[0])
    return None
