"""Tables of VOTable documents (VOTable 1.5), looked through first and then parsed by astropy."""

import io
import logging
import math
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import votable
from astropy.io.votable.exceptions import W46
from astropy.io.votable.tree import TableElement

from photoz.tables.raw_table import FAULTS, LARGE_ARRAY, RawTable, to_arrow, units_of
from photoz.tables.votable_check import FieldSeen, TableSeen, look_through

log = logging.getLogger("photoz.catalog")

_TEXTS = ("char", "unicodeChar")
_NUMBERS = ("boolean", "bit", "unsignedByte", "short", "int", "long", "float", "double")
_KNOWN = (*_TEXTS, *_NUMBERS, "floatComplex", "doubleComplex")


def votable_tables(path: Path, data: bytes, most_bytes: int) -> Iterator[tuple[int, RawTable]]:
    """Each table with its number, counted from 1. ValueError as `look_through`, and for what is no VOTable."""
    found = look_through(data, most_bytes)
    if any(seen.cut_off for seen in found):
        log.warning(
            "%s: the server cut this result off (QUERY_STATUS OVERFLOW), so rows are missing; raise its row limit "
            "(MAXREC, TOP) and download it again", path.name,
        )  # fmt: skip
    for number, seen in enumerate(found):
        yield number + 1, _table(path, data, number, seen, alone=len(found) == 1)


def _table(path: Path, data: bytes, number: int, seen: TableSeen, alone: bool) -> RawTable:
    parsed: TableElement | None
    try:
        parsed = _parse(data, number, seen, None)
    except FAULTS:
        if alone and not seen.rows:  # packed rows are only known once they are parsed
            raise
        parsed = None  # some column can't be read: perhaps one that nobody uses

    def decode(place: int) -> pa.Array:
        field = seen.fields[place]
        _check_field(field)
        table = parsed or _parse(data, number, seen, place)
        cells = table.array[table.fields[place if parsed else 0].ID]
        values, null = np.ma.getdata(cells), np.ma.getmaskarray(cells)
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8")
        return to_arrow(values, null)

    names = tuple(field.name for field in seen.fields)
    units = units_of((field.name, field.unit) for field in seen.fields)
    arrays = {field.name: field.arraysize for field in seen.fields if _is_large(field)}
    rows = seen.rows if parsed is None else len(parsed.array)
    return RawTable(path, names, rows, units, True, decode, arrays, seen.name)


def _parse(data: bytes, number: int, seen: TableSeen, place: int | None) -> TableElement:
    """The table with all columns or one. What astropy says of the document concerns its writer, but not lost text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", W46)
        # A type that VOTable doesn't have: as text it does no harm, but packed rows can't be told apart without it.
        unknown = {field.datatype: "char" for field in seen.fields if field.datatype not in _KNOWN and seen.rows}
        parse = partial(votable.parse, io.BytesIO(data), table_number=number, verify="warn")
        document = parse(columns=None if place is None else [place], datatype_mapping=unknown)
    table = document.get_first_table()
    if len(table.fields) != (len(seen.fields) if place is None else 1):
        raise ValueError("its tables can't be told apart")
    return table


def _is_large(field: FieldSeen) -> bool:
    axes = [int(axis) for axis in field.arraysize.split("x") if axis.isdecimal()]
    return field.datatype not in _TEXTS and ("x" in field.arraysize or math.prod(axes) >= LARGE_ARRAY)


def _check_field(field: FieldSeen) -> None:
    if field.datatype in _TEXTS:
        wrong = "x" in field.arraysize and f"arrays of texts ({field.arraysize})"
    elif field.datatype in _NUMBERS:
        wrong = field.arraysize not in ("", "1") and f"arrays ({field.arraysize} of {field.datatype})"
    else:
        wrong = f"values of datatype {field.datatype[:40]!r}"
    if wrong:
        raise ValueError(f"holds {wrong}; expected one number or text a row")
