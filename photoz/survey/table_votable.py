"""Tables of VOTable documents (VOTable 1.5), looked through first and then parsed by astropy."""

import io
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import votable
from astropy.io.votable.exceptions import W46
from astropy.io.votable.tree import TableElement

from photoz.survey.raw_table import FAULTS, RawTable, to_arrow, units_of
from photoz.survey.votable_check import FieldSeen, TableSeen, look_through

_TEXTS = ("char", "unicodeChar")
_NUMBERS = ("boolean", "bit", "unsignedByte", "short", "int", "long", "float", "double")


def votable_tables(path: Path, data: bytes, most_bytes: int) -> Iterator[tuple[int, RawTable]]:
    """Each table with its number, counted from 1. ValueError as `look_through`, and for what is no VOTable."""
    for number, seen in enumerate(look_through(data, most_bytes)):
        yield number + 1, _table(path, data, number, seen)


def _table(path: Path, data: bytes, number: int, seen: TableSeen) -> RawTable:
    parsed: TableElement | None
    try:
        parsed = _parse(data, number, seen, None)
    except FAULTS:
        if not seen.rows:  # packed rows are only known once they are parsed
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
    arrays = {
        field.name: field.arraysize for field in seen.fields if "x" in field.arraysize and field.datatype not in _TEXTS
    }
    rows = seen.rows if parsed is None else len(parsed.array)
    return RawTable(path, names, rows, units, True, decode, arrays, seen.name)


def _parse(data: bytes, number: int, seen: TableSeen, place: int | None) -> TableElement:
    """The table with all columns or one. What astropy says of the document concerns its writer, but not lost text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", W46)
        unknown = {field.datatype: "char" for field in seen.fields if field.datatype not in (*_TEXTS, *_NUMBERS)}
        parse = partial(votable.parse, io.BytesIO(data), table_number=number, verify="warn")
        document = parse(columns=None if place is None else [place], datatype_mapping=unknown)
    table = document.get_first_table()
    if len(table.fields) != (len(seen.fields) if place is None else 1):
        raise ValueError("its tables can't be told apart")
    return table


def _check_field(field: FieldSeen) -> None:
    if field.datatype in _TEXTS:
        wrong = "x" in field.arraysize and f"arrays of texts ({field.arraysize})"
    elif field.datatype in _NUMBERS:
        wrong = field.arraysize not in ("", "1") and f"arrays ({field.arraysize} of {field.datatype})"
    else:
        wrong = f"values of datatype {field.datatype[:40]!r}"
    if wrong:
        raise ValueError(f"holds {wrong}; expected one number or text a row")
