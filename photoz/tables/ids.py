"""Object ids of users' tables: text or whole numbers, each once, and never passed through floating point."""

import logging
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from photoz.errors import BadInput
from photoz.tables.rows import TableRows, as_text, without_excel

log = logging.getLogger("photoz.catalog")

_DIGITS_OF_FLOATS = {pa.float16(): 11, pa.float32(): 24, pa.float64(): 53}  # binary
_POWERS = np.uint64(10) ** np.arange(15, 20, dtype=np.uint64)  # spreadsheets keep 15 digits
_ID_NAMES = re.compile(
    r"(?:(?:spec|photo|source|target|objects?|obj|coadd|gaia|ls|des|desi|hsc|sdss)_?)*id", re.IGNORECASE
)
_SCIENTIFIC = re.compile(r"^[+-]?\d+(\.\d*)?[eE]\+?\d+$")
_LONG_DECIMAL = re.compile(r"^-?\d{16,}\.0*$")
_NUMBER_OR_EMPTY = r"^([+-]?\d+(\.\d*)?([eE]\+?\d+)?)?$"
_GAIA = re.compile("source|gaia", re.IGNORECASE)
_LARGEST = "18446744073709551615"  # 2**64 - 1
_COPIED = np.uint64(10**9)
_FEWEST_TO_JUDGE = 3
_SURE_BITS = 20  # a chance of one in a million that whole ids look rounded
_DAMAGE = (
    "the ids have been rounded, as spreadsheets and float64 columns do, and can't be told apart; "
    "expected whole ids, all digits: export the table again with ids as text or 64-bit integers"
)


class _Rounding(NamedTuple):
    """An id that looks rounded, and how sure that is: of so many large ids, with a chance of 2**-bits."""

    example: str
    bits: float
    ids: int = _FEWEST_TO_JUDGE


def checked_ids(rows: TableRows, name: str) -> pa.Array:
    """The ids as text, without Excel's quotes; BadInput if any is missing, rounded or there twice."""
    column = rows.column(name)
    _refuse_if_rounded(rows, name, column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
        if not pc.all(pc.equal(column, pc.round(column))).as_py():
            raise rows.refusal(f"{name} holds fractions; expected text or whole numbers as ids")
        column = column.cast(pa.int64())
    ids = without_excel(as_text(column, rows, name)).cast(pa.string())
    empty = np.flatnonzero(pc.equal(pc.fill_null(ids, ""), ""))
    if len(empty):
        raise rows.refusal(f"{name} is empty in row {rows.number(empty[0])} ({len(empty)} in all); expected an id")
    counts = pc.value_counts(ids)
    several = counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist()
    if several:
        first = max(several, key=lambda one: int(one["counts"]))
        raise rows.refusal(
            f"{name} = {first['values']!r} is there {first['counts']} times ({len(several)} ids repeat); "
            "expected each galaxy once: remove the repeats"
        )
    return ids


def refuse_rounded_ids(rows: TableRows) -> None:
    """BadInput if a column that is an id by its name has been rounded, even if nobody asked for it.

    A table damaged there can't be joined back to its survey, and has usually lost more than the ids.
    """
    for name in filter(_ID_NAMES.fullmatch, rows.names):
        try:
            column = rows.column(name)
            column = column if pa.types.is_floating(column.type) else as_text(column, rows, name)
        except BadInput:  # nobody asked for this column: that it can't be read must not cost the table
            continue
        _refuse_if_rounded(rows, name, column)


def _refuse_if_rounded(rows: TableRows, name: str, column: pa.Array) -> None:
    rounding = _rounding(rows, name, column)
    if rounding is None:
        return
    if rounding.bits >= _SURE_BITS and rounding.ids >= _FEWEST_TO_JUDGE:
        raise rows.refusal(f"{name} = {rounding.example}: {_DAMAGE}")
    log.warning(
        "%s: %s = %s may have been rounded on its way (by chance ids look so once in %d); compare it with the survey's",
        rows.path.name, name, rounding.example, round(2**rounding.bits),
    )  # fmt: skip


def _rounding(rows: TableRows, name: str, column: pa.Array) -> _Rounding | None:
    if pa.types.is_nested(column.type):
        return None
    if pa.types.is_floating(column.type):
        largest = float(2 ** _DIGITS_OF_FLOATS[column.type])
        large = pc.filter(column, pc.greater(pc.abs(column.cast(pa.float64())), largest))
        return _Rounding(format(float(large[0].as_py()), "g"), np.inf) if len(large) else None
    texts = without_excel(as_text(column, rows, name))
    # Only numbers of 16 digits and more can have been rounded; shorter ones are not looked at one by one.
    odd = pc.match_substring_regex(texts, f"{_SCIENTIFIC.pattern}|{_LONG_DECIMAL.pattern}")
    # Beside ids with letters, 0012e345 is a name.
    if pc.any(odd).as_py() and pc.all(pc.match_substring_regex(texts, _NUMBER_OR_EMPTY)).as_py():
        return _Rounding(texts.filter(odd)[0].as_py(), np.inf)
    long = texts.filter(pc.match_substring_regex(texts, r"^-?[1-9]\d{15,19}$")).drop_null()
    long = pc.utf8_ltrim(long, "-")
    fits = pc.or_(pc.less(pc.utf8_length(long), 20), pc.less_equal(long, _LARGEST))
    numbers = np.unique(long.filter(fits).cast(pa.uint64()).to_numpy())
    large = numbers[numbers > 2**53]
    if _GAIA.search(name) and not np.any(large % np.uint64(128)):
        large = large[large >= 2**60]  # Gaia's end in 7 zero bits by nature, so float64 holds the smaller ones
    return _through_spreadsheet(numbers) or _through_float(large)


def _through_spreadsheet(numbers: npt.NDArray[np.uint64]) -> _Rounding | None:
    """Whether all digits after the 15th are zero, or, after copies such as 1.24E+18, even more of them."""
    if not len(numbers):
        return None
    lost = np.searchsorted(_POWERS, numbers, side="right").astype(np.uint64)
    kept = np.uint64(10) ** lost
    # Multiples of a little more than rounding leaves are made so: by a date and time, or a number of a field.
    if np.any(numbers % kept) or not (np.any(numbers % (kept * np.uint64(10))) or not np.any(numbers % _COPIED)):
        return None
    return _Rounding(str(numbers[0]), float(lost.sum()) * np.log2(10), len(numbers))


def _through_float(numbers: npt.NDArray[np.uint64]) -> _Rounding | None:
    """Whether all numbers are float64 numbers, and not multiples of more than that by the survey's own scheme."""
    exact = numbers.astype(np.float64)
    below = exact < 2.0**64
    if not len(numbers) or not below.all() or np.any(exact.astype(np.uint64) != numbers) or _are_spectra(numbers):
        return None
    bits = np.frexp(exact)[1] - 53
    if len(numbers) >= _FEWEST_TO_JUDGE and not np.any(numbers % (np.uint64(2) << bits.astype(np.uint64))):
        return None
    return _Rounding(str(numbers[0]), float(bits.sum()), len(numbers))


def _are_spectra(numbers: npt.NDArray[np.uint64]) -> bool:
    """Whether all are specObjIDs: plate, fibre, MJD - 50000 and run2d, then ten zero bits by nature."""
    fibre, day = numbers >> np.uint64(38) & np.uint64(0xFFF), numbers >> np.uint64(24) & np.uint64(0x3FFF)
    return not np.any(numbers % np.uint64(1024)) and bool(np.all((fibre >= 1) & (fibre <= 1000) & (day > 1000)))
