"""Tables of FITS files (FITS standard 4.0, sections 7.2 and 7.3), a column at a time."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from photoz.tables.fits_header import MOST_AXES, Header, fits_units, real, text, whole
from photoz.tables.raw_table import LARGE_ARRAY, RawTable, to_arrow, units_of

_FORMAT = re.compile(r"(\d*)([LXBIJKAEDCMPQ])(.*)")
_ASCII_FORMAT = re.compile(r"([AIFED])(\d+)(?:\.(\d+))?")
_TYPES = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S"}
_BYTES = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "A": 1, "C": 8, "M": 16, "P": 8, "Q": 16}
_UNREADABLE = {"X": "bits", "C": "complex numbers", "M": "complex numbers", "P": "arrays of any length"} | {
    "Q": "arrays of any length"
}


def fits_tables(path: Path, data: bytes) -> Iterator[tuple[int, RawTable]]:
    """Each table with the number of its HDU (the primary is 0). ValueError for headers that make no sense."""
    for number, (header, start, size) in enumerate(fits_units(data)):
        kind = text(header, "XTENSION")
        if start + size > len(data) or whole(header, "TFIELDS", 0) not in range(MOST_AXES + 1):
            raise ValueError("its header promises more data, or more columns, than there are")
        if kind in ("BINTABLE", "A3DTABLE") and "ZIMAGE" not in header:
            yield number, _table(path, data, start, header, _binary_fields(header))
        elif kind == "TABLE":
            yield number, _table(path, data, start, header, _ascii_fields(header))


@dataclass(frozen=True)
class _Field:
    """Where a column's values lie in each row, and how to read them."""

    number: int
    code: str
    offset: int
    width: int  # bytes
    shape: tuple[int, ...] = ()  # of a cell, slowest axis first; () for one value
    decimals: int = 0  # of an ASCII table's number that is written without a point
    holds: str = ""  # what keeps it from being read


def _binary_fields(header: Header) -> list[_Field]:
    fields, offset = [], 0
    for number in range(1, whole(header, "TFIELDS") + 1):
        form = text(header, f"TFORM{number}")
        match = _FORMAT.fullmatch(form.replace(" ", ""))
        if match is None:
            raise ValueError(f"FITS keyword TFORM{number} = {form!r}; expected a column format such as D or 8A")
        repeat, code = int(match[1] or 1), match[2]
        width = -(-repeat // 8) if code == "X" else repeat * _BYTES[code]
        holds = _UNREADABLE.get(code, "" if repeat else "no values")
        if "ZTABLE" in header:
            holds = "compressed values (unpack the file with funpack)"
        elif code in "PQ" and (most := re.match(r"\w\((\d+)\)", match[3])) and int(most[1]) >= LARGE_ARRAY:
            holds = f"arrays of up to {most[1]} values"
        fields.append(_Field(number, code, offset, width, _shape(header, number, code, repeat, match[3]), holds=holds))
        offset += width
    if offset > whole(header, "NAXIS1"):
        raise ValueError(f"its columns take {offset} bytes, and a row has NAXIS1 = {whole(header, 'NAXIS1')}")
    return fields


def _shape(header: Header, number: int, code: str, repeat: int, rest: str) -> tuple[int, ...]:
    """A cell's shape. For texts, TDIM's first axis is a text's length, and so is the number behind the A."""
    axes = [int(axis) for axis in re.findall(r"\d+", text(header, f"TDIM{number}"))]
    if math.prod(axes) != repeat or not axes:
        axes = [int(rest), repeat // int(rest)] if code == "A" and rest.isdigit() and int(rest) > 0 else [repeat]
    shape = tuple(reversed(axes[1:] if code == "A" else axes))
    return () if math.prod(shape) == 1 else shape


def _ascii_fields(header: Header) -> list[_Field]:
    fields = []
    for number in range(1, whole(header, "TFIELDS") + 1):
        form = text(header, f"TFORM{number}")
        match = _ASCII_FORMAT.fullmatch(form.strip())
        start = whole(header, f"TBCOL{number}") - 1
        if match is None or start < 0 or start + int(match[2]) > whole(header, "NAXIS1"):
            raise ValueError(
                f"FITS keyword TFORM{number} = {form!r} at TBCOL{number} = {start + 1} is outside the rows"
            )
        fields.append(_Field(number, match[1].lower(), start, int(match[2]), decimals=int(match[3] or 0)))
    return fields


def _table(path: Path, data: bytes, start: int, header: Header, fields: list[_Field]) -> RawTable:
    rows, stride = whole(header, "NAXIS2"), whole(header, "NAXIS1")
    names = tuple(text(header, f"TTYPE{field.number}") or f"col{field.number}" for field in fields)
    units = units_of(zip(names, (text(header, f"TUNIT{field.number}") for field in fields), strict=True))
    # One row whose cells hold a whole column each, all of one length: a table on its side.
    lengths = {field.shape[0] for field in fields if len(field.shape) == 1}
    on_side = rows == 1 and len(lengths) == 1 and not any(field.shape == () and not field.holds for field in fields)
    arrays = {} if on_side else dict(_arrays(names, fields))
    width = next(iter(lengths)) if on_side else 1

    def decode(place: int) -> pa.Array:
        field = fields[place]
        if field.holds or (field.shape and not (on_side and field.shape == (width,))):
            shape = "x".join(map(str, field.shape))
            raise ValueError(f"holds {field.holds or f'arrays of {shape}'}; expected one value a row")
        size = field.width // width
        cells: NDArray[np.generic] = np.ndarray(
            (rows, width), f"S{size}" if field.code in "Aaifed" else _TYPES[field.code], data,
            start + field.offset, (stride, size),
        ).reshape(-1)  # fmt: skip
        return _ascii_values(header, field, cells) if field.code.islower() else _values(header, field, cells)

    return RawTable(path, names, rows * width, units, True, decode, arrays, text(header, "EXTNAME"))


def _arrays(names: tuple[str, ...], fields: list[_Field]) -> Iterator[tuple[str, str]]:
    for name, field in zip(names, fields, strict=True):
        if field.holds.startswith("arrays of up to"):
            yield name, field.holds.removeprefix("arrays of ")
        elif field.code != "A" and (len(field.shape) > 1 or math.prod(field.shape) >= LARGE_ARRAY):
            yield name, "x".join(map(str, field.shape))


def _values(header: Header, field: _Field, cells: NDArray[np.generic]) -> pa.Array:
    if field.code == "A":
        return _texts(cells)
    if field.code == "L":
        return to_arrow(cells == b"T", ~np.isin(cells, [b"T", b"F"]))
    scale, zero = real(header, f"TSCAL{field.number}", 1.0), real(header, f"TZERO{field.number}", 0.0)
    null: NDArray[np.bool_] | bool = False
    if cells.dtype.kind in "iu" and f"TNULL{field.number}" in header:
        null = cells == whole(header, f"TNULL{field.number}")  # of what is stored, before it is scaled
    if (scale, zero) == (1.0, 0.0):
        return to_arrow(cells, null)
    if scale == 1.0 and zero.is_integer() and cells.dtype.kind in "iu":
        return to_arrow(_shifted(cells, int(zero)), null)
    with np.errstate(over="ignore", invalid="ignore"):
        return to_arrow(cells.astype(np.float64) * scale + zero, null)


def _shifted(cells: NDArray[np.generic], zero: int) -> NDArray[np.generic]:
    """Whole numbers stay whole: TZERO = 2^15, 2^31, 2^63 make them unsigned, -128 makes bytes signed."""
    stored = cells.astype(np.int64)
    if zero == 2**63:
        return stored.view(np.uint64) ^ np.uint64(2**63)
    if len(stored) and not -(2**63) <= int(stored.min()) + zero <= int(stored.max()) + zero < 2**63:
        raise ValueError(f"does not fit 64 bits with TZERO = {zero}")
    return stored + zero


def _texts(cells: NDArray[np.generic]) -> pa.Array:
    values = [cell.partition(b"\0")[0].rstrip(b" ") for cell in cells.tolist()]
    texts = []
    for row, value in enumerate(values):
        try:
            texts.append(value.decode() or None)
        except UnicodeDecodeError:
            raise ValueError(f"holds {value[:40]!r} in row {row + 1}, which is neither ASCII nor UTF-8") from None
    return pa.array(texts, pa.string())


def _ascii_values(header: Header, field: _Field, cells: NDArray[np.generic]) -> pa.Array:
    """A blank field, and one that TNULL names, is null."""
    null = text(header, f"TNULL{field.number}").strip()
    scale, zero = real(header, f"TSCAL{field.number}", 1.0), real(header, f"TZERO{field.number}", 0.0)
    texts = [None if value in (None, null) else value for value in _texts(cells).to_pylist()]
    if field.code == "a":
        return pa.array(texts, pa.string())
    stripped = [(value or "").strip() for value in texts]
    known = [None if value in ("", null) else value.upper().replace("D", "E") for value in stripped]
    if field.code == "i" and (scale, zero) == (1.0, 0.0):
        return pa.array([None if value is None else int(value) for value in known], pa.int64())
    numbers = [None if value is None else _decimal(value, field.decimals) * scale + zero for value in known]
    return pa.array(numbers, pa.float64())


def _decimal(value: str, decimals: int) -> float:
    """A number without a point has as many decimals as its TFORM says."""
    return float(value) if "." in value or "N" in value else float(value) / 10**decimals
