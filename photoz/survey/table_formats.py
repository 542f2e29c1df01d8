"""Columns and units out of CSV, Parquet, FITS and VOTable files, before anyone asks what they mean."""

import csv
import io
import warnings
from collections import Counter
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

from photoz.errors import BadInput

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
_NULLS = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "N/A", "None", "--"]


@dataclass(frozen=True)
class RawTable:
    """Columns of equal length as the file gives them, and the units that it states."""

    columns: dict[str, pa.Array]
    units: dict[str, str]
    states_units: bool  # the format has a place for units: FITS and VOTable

    @property
    def rows(self) -> int:
        """Number of rows."""
        return max((len(column) for column in self.columns.values()), default=0)


def read_raw(path: Path) -> RawTable:
    """The file's columns; BadInput names what keeps it from being read. CSV columns are text."""
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
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, ValueError, IndexError, VOWarning) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"--table {path}: can't be read as {kind}: {reason}") from None
    if raw.rows == 0:
        raise BadInput(f"--table {path}: the table has no rows; expected at least one galaxy")
    return raw


def _read_csv(path: Path) -> RawTable:
    text = path.read_bytes().decode("utf-8-sig")
    header, start = _csv_header(text)
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise BadInput(f"--table {path}: column {repeated[0]!r} is there twice; expected each name once")
    if not text[start:].strip():
        return RawTable({name: pa.array([], pa.string()) for name in header}, {}, states_units=False)
    table = pa_csv.read_csv(
        io.BytesIO(text[start:].encode()),
        read_options=pa_csv.ReadOptions(column_names=header),
        parse_options=pa_csv.ParseOptions(newlines_in_values='"' in text),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()), null_values=_NULLS, strings_can_be_null=True
        ),
    )
    return RawTable({name: _trimmed(table[name].combine_chunks()) for name in header}, {}, states_units=False)


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
    table = pq.read_table(path)
    units = {
        field.name: field.metadata[b"unit"].decode()
        for field in table.schema
        if field.metadata and b"unit" in field.metadata
    }
    return RawTable({name: table[name].combine_chunks() for name in table.column_names}, units, states_units=False)


def _read_fits(path: Path) -> RawTable:
    # From memory: astropy leaves the file open when it is no FITS. What it says of headers concerns their writers.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        with fits.open(io.BytesIO(path.read_bytes())) as file:
            tables = [hdu for hdu in file if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
            if not tables:
                raise BadInput(f"--table {path}: a FITS file without a table; expected a table extension")
            return _from_astropy(astropy.table.Table.read(tables[0], format="fits", unit_parse_strict="silent"))


def _read_votable(path: Path) -> RawTable:
    table = votable.parse_single_table(path, verify="ignore")
    units = {str(field.name or field.ID): str(field.unit) for field in table.fields if field.unit is not None}
    raw = _from_astropy(table.to_table(use_names_over_ids=True))
    return RawTable(raw.columns, units, states_units=True)


def _from_astropy(table: astropy.table.Table) -> RawTable:
    table.convert_bytestring_to_unicode()
    columns = {name: _to_arrow(table[name]) for name in table.colnames if table[name].ndim == 1}
    units = {name: str(table[name].unit) for name in columns if table[name].unit is not None}
    return RawTable(columns, units, states_units=True)


def _to_arrow(column: astropy.table.Column) -> pa.Array:
    mask = np.ma.getmaskarray(column)
    values = np.ma.getdata(column)
    if values.dtype.kind in "OU":
        texts = [None if hidden else str(value) for value, hidden in zip(values, mask, strict=True)]
        return pa.array(texts, pa.string())
    return pa.array(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))), mask=mask)
