"""Columns and units out of CSV, Parquet, FITS and VOTable files, before anyone asks what they mean."""

import csv
import hashlib
import io
import re
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import astropy.table
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from astropy.io import fits, votable
from astropy.io.votable.exceptions import VOWarning
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from photoz.artifacts.parquet import ALWAYS_ALLOWED, BROKEN, MOST_UNFOLDED, is_boundless, read_bounded
from photoz.errors import BadInput
from photoz.survey.fits_header import GZIP_START, MOST_AXES, fits_units, gunzip, whole
from photoz.survey.votable_check import check_votable

FORMATS = {
    ".csv": "CSV",
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".fits": "FITS",
    ".fit": "FITS",
    ".fits.gz": "FITS",
    ".vot": "VOTable",
    ".votable": "VOTable",
    ".xml": "VOTable",
}
# What the readers trip over in broken files: astropy has no one error for them.
_FAULTS = (
    *BROKEN, ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError, VOWarning, csv.Error,
    fits.VerifyError, struct.error,
)  # fmt: skip
_VARIABLE = re.compile(r"\d*[PQ]")
_NULLS = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "N/A", "None", "--"]


@dataclass(frozen=True)
class RawTable:
    """A table's columns by name, each decoded when it is asked for, and the units that the file states."""

    path: Path
    names: tuple[str, ...]  # in file order, readable or not; a name can stand twice
    rows: int
    units: Mapping[str, str]  # of names that stand once
    states_units: bool  # the format has a place for units: FITS and VOTable
    decode: Callable[[str], pa.Array]

    def column(self, name: str) -> pa.Array:
        """The column's values; BadInput names it if it can't be read, or if its name stands twice."""
        if self.names.count(name) > 1:
            raise BadInput(
                f"--table {self.path}: column {name!r} is there {self.names.count(name)} times; "
                "expected it once: rename or remove the others"
            )
        try:
            return self.decode(name)
        except _FAULTS as error:
            raise BadInput(f"--table {self.path}: column {name!r} can't be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def table_file(path: Path) -> Path:
    """The file or folder that is read."""
    return path


def table_digest(path: Path) -> str:
    """SHA-256 of all that is read."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_raw(path: Path, suits: Callable[[Sequence[str]], bool] = lambda names: True) -> RawTable:
    """The file's table, of several the first whose column names suit; BadInput says what keeps it from being read.

    CSV columns are text.
    """
    if not path.is_file():
        raise BadInput(f"--table {path}: no such file; expected a CSV, Parquet, FITS or VOTable file")
    readers = {"CSV": _read_csv, "Parquet": _read_parquet, "FITS": _read_fits, "VOTable": _read_votable}
    name = path.name.lower()
    kind = next((kind for suffix, kind in FORMATS.items() if name.endswith(suffix)), None)
    if kind is None:
        known = ", ".join(sorted(FORMATS))
        raise BadInput(f"--table {path}: the name does not tell the format; expected it to end with one of {known}")
    try:
        raw = readers[kind](path)
    except _FAULTS as error:
        raise BadInput(f"--table {path}: can't be read as {kind}: {_reason(error)}") from None
    if raw.rows == 0:
        raise BadInput(f"--table {path}: the table has no rows; expected at least one galaxy")
    return raw


def _held(path: Path, columns: dict[str, pa.Array], units: dict[str, str], states_units: bool) -> RawTable:
    rows = max((len(column) for column in columns.values()), default=0)
    return RawTable(path, tuple(columns), rows, units, states_units, columns.__getitem__)


def _read_csv(path: Path) -> RawTable:
    text = path.read_bytes().decode("utf-8-sig")
    header, start = _csv_header(text)
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise BadInput(f"--table {path}: column {repeated[0]!r} is there twice; expected each name once")
    if not text[start:].strip():
        return _held(path, {name: pa.array([], pa.string()) for name in header}, {}, states_units=False)
    table = pa_csv.read_csv(
        io.BytesIO(text[start:].encode()),
        read_options=pa_csv.ReadOptions(column_names=header),
        parse_options=pa_csv.ParseOptions(newlines_in_values='"' in text),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()), null_values=_NULLS, strings_can_be_null=True
        ),
    )
    return _held(path, {name: _trimmed(table[name].combine_chunks()) for name in header}, {}, states_units=False)


def _trimmed(column: pa.Array) -> pa.Array:
    texts = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(texts, pa.array(_NULLS)), pa.scalar(None, pa.string()), texts)


def _csv_header(text: str) -> tuple[list[str], int]:
    """(column names, where the rows start). SkyServer's `#Table1` and other comments above are passed over.

    A commented line right above the numbers (`# ra,dec,z`) is taken as the header.
    """
    start, commented = 0, ""
    while text.startswith("#", start) or text[start : start + 1] in ("\n", "\r"):
        end = _line_end(text, start)
        commented, start = text[start:end].lstrip("#").strip() or commented, end
    end = _line_end(text, start)
    header, above = _cells(text[start:end]), _cells(commented)
    if commented and len(above) == len(header) and all(above) and _is_number(header[0]):
        return above, start
    return header, end


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end + 1


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line.strip("\r\n")]), [])]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> RawTable:
    schema = pq.read_schema(path)
    units = {
        field.name: field.metadata[b"unit"].decode() for field in schema if field.metadata and b"unit" in field.metadata
    }
    rows = pq.read_metadata(path).num_rows

    def decode(name: str) -> pa.Array:
        kind = schema.field(name).type
        # Lists are not read, only known by name and type: whoever asks for one is told what it holds.
        return pa.nulls(rows, kind) if is_boundless(kind) else read_bounded(path, [name])[name].combine_chunks()

    return RawTable(path, tuple(schema.names), rows, units, False, decode)


def _unzipped(path: Path) -> bytes:
    data = path.read_bytes()
    return gunzip(data, _most_unfolded(data)) if data.startswith(GZIP_START) else data


def _most_unfolded(data: bytes) -> int:
    return max(ALWAYS_ALLOWED, MOST_UNFOLDED * len(data))


def _read_fits(path: Path) -> RawTable:
    data = _unzipped(path)
    for header, start, size in fits_units(data):
        if start + size > len(data) or whole(header, "TFIELDS", 0) not in range(MOST_AXES + 1):
            raise ValueError("its header promises more data, or more columns, than there are")
    # From memory: astropy leaves the file open when it is no FITS. What it says of headers concerns their writers.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        with fits.open(io.BytesIO(data)) as file:
            tables = [hdu for hdu in file if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
            if not tables:
                raise BadInput(f"--table {path}: a FITS file without a table; expected a table extension")
            return _from_fits(path, tables[0])


def _from_fits(path: Path, table: fits.BinTableHDU) -> RawTable:
    """The columns with one value a row. Those of variable length are left: many rows can point at the same long one."""
    columns, units = {}, {}
    for column in table.columns:
        if _VARIABLE.match(column.format) or (values := table.data.field(column.name)).ndim != 1:
            continue
        if values.dtype.kind == "S":
            values = np.char.decode(values, "ascii")
        blank = values == column.null if column.null is not None and values.dtype.kind in "iu" else values == ""
        columns[column.name] = _to_arrow(values, np.broadcast_to(blank, values.shape))
        if column.unit is not None:
            units[column.name] = str(column.unit)
    return _held(path, columns, units, states_units=True)


def _read_votable(path: Path) -> RawTable:
    data = _unzipped(path)
    check_votable(data, _most_unfolded(data))
    table = votable.parse_single_table(io.BytesIO(data), verify="ignore")
    units = {str(field.name or field.ID): str(field.unit) for field in table.fields if field.unit is not None}
    return _held(path, _from_astropy(table.to_table(use_names_over_ids=True)), units, states_units=True)


def _from_astropy(table: astropy.table.Table) -> dict[str, pa.Array]:
    table.convert_bytestring_to_unicode()
    scalar = [name for name in table.colnames if table[name].ndim == 1]
    return {name: _to_arrow(np.ma.getdata(table[name]), np.ma.getmaskarray(table[name])) for name in scalar}


def _to_arrow(values: NDArray[np.generic], mask: NDArray[np.bool_]) -> pa.Array:
    if values.dtype.kind in "OU":
        texts = [None if hidden else str(value) for value, hidden in zip(values, mask, strict=True)]
        return pa.array(texts, pa.string())
    return pa.array(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))), mask=mask)
