"""Users' tables in CSV, ECSV, Parquet, FITS and VOTable, told apart by their first bytes, whatever their names."""

import bz2
import gzip
import hashlib
import io
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from photoz.artifacts.parquet import ALWAYS_ALLOWED, MOST_UNFOLDED
from photoz.errors import BadInput
from photoz.tables.fits import fits_tables
from photoz.tables.fits_header import GZIP_START, Readable, unpacked
from photoz.tables.parquet import PARQUET_START, described_in, parquet_parts, read_parquet
from photoz.tables.raw_table import FAULTS, RawTable, reason
from photoz.tables.text import decoded, read_text
from photoz.tables.votable import votable_tables

__all__ = ["RawTable", "read_raw", "table_digest", "table_file"]

log = logging.getLogger("photoz.catalog")

_EXPECTED = "expected CSV, ECSV, Parquet, FITS or VOTable"
_FITS = re.compile(rb"SIMPLE *(=|$)")
_ONE_OF_MANY = re.compile(r"(.+)\[([^\[\]]+)\]")
_PACKED: dict[bytes, Callable[[io.BytesIO], Readable]] = {GZIP_START: gzip.open, b"BZh": bz2.open}
_OTHERS = (
    (rb"\x89HDF", "an HDF5 file", "save the table as Parquet, such as with pandas: df.to_parquet"),
    (rb"PK.{28}[^/]*(\[Content_Types\]|_rels|xl/|docProps)", "an Excel workbook", "save its sheet as CSV UTF-8"),
    (rb"PK.{28}mimetypeapplication/vnd\.oasis", "an OpenDocument spreadsheet", "save its sheet as CSV"),
    (rb"PK.{28}[^/]*\.npy", "an NPZ archive of numpy arrays", "save the columns as Parquet or CSV"),
    (rb"PK", "a ZIP archive", "unpack it with unzip"),
    (rb"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", "save its sheet as CSV"),
    (rb"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it with unzstd"),
    (rb"\xfd7zXZ\0", "packed with xz", "unpack it with unxz"),
    (rb"\x1f\x9d", "packed with compress (.Z)", "unpack it with uncompress"),
    (rb"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (rb".{257}ustar", "a tar archive", "unpack it and name the table in it"),
    (rb"ARROW1|FEA1", "an Arrow (Feather) file", "save the table as Parquet, such as with pandas: df.to_parquet"),
    (rb"PARE", "an encrypted Parquet file", "decrypt it"),
    (rb"ORC", "an ORC file", "save the table as Parquet"),
    (rb"Obj\x01", "an Avro file", "save the table as Parquet"),
    (rb"\x93NUMPY", "a numpy array (NPY)", "save the columns as Parquet or CSV"),
    (rb"\x80[\x02-\x05]", "a pickle, which may run code and is never read", "save the table as Parquet"),
    (rb"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|II\*\0|MM\0\*", "an image", "name the table, whose image column names the images"),
    (rb"%PDF", "a PDF", "name the table"),
)


def table_file(path: Path) -> Path:
    """The file or folder that is read: `a.fits` for `a.fits[2]`."""
    return _split(path)[0]


def _split(path: Path) -> tuple[Path, str]:
    """The file, and which of its tables is named behind it in brackets."""
    match = None if path.exists() else _ONE_OF_MANY.fullmatch(str(path))
    return (Path(match[1]), match[2].strip()) if match else (path, "")


def table_digest(path: Path) -> str:
    """SHA-256 of all that is read: a file's own, for a folder of its parts' names and digests."""
    file, which = _split(path)
    if not file.is_dir() and not which:
        return _file_digest(file)
    parts = [*parquet_parts(file), *described_in(file)] if file.is_dir() else [file]
    lines = (f"{part.relative_to(file).as_posix()} {_file_digest(part)} {which}\n" for part in parts)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_raw(path: Path, suits: Callable[[Sequence[str]], int] = lambda names: True) -> RawTable:
    """The file's table, of several the first whose column names suit best; BadInput says why it can't be read.

    CSV columns are text. A folder is a Parquet table in parts. `FILE[NAME]` and `FILE[2]` name one table of a file.
    """
    file, which = _split(path)
    if not file.exists():
        raise BadInput(f"--table {path}: no such file; {_EXPECTED}")
    kind, data = "a table", b""
    try:
        kind, data = ("Parquet", b"") if file.is_dir() else _content(path, file)
        if kind == "Parquet":
            raw = read_parquet(file, _parts(path, file))
        elif kind == "text":
            raw = read_text(path, data)
        else:
            most = max(ALWAYS_ALLOWED, MOST_UNFOLDED * file.stat().st_size)
            tables = fits_tables(path, data) if kind == "FITS" else votable_tables(path, data, most)
            raw, which = _chosen(path, tables, which, suits), ""
    except FAULTS as error:
        name = "CSV" if kind == "text" else kind
        raise BadInput(f"--table {path}: can't be read as {name}: {reason(error)}") from None
    if which:
        raise BadInput(f"--table {path}: [{which}] names a table of a FITS file or VOTable, and this is {kind}")
    if raw.rows == 0:
        raise BadInput(f"--table {path}: the table has no rows; expected at least one galaxy")
    if raw.arrays:
        said = ", ".join(f"{name} ({shape})" for name, shape in raw.arrays.items())
        log.warning(
            "%s: columns with an array in each row are not read: %s; if they are images, save each as a file (NPY, "
            "FITS, PNG), name the files in a column `image`, and use --images files", file.name, said[:500],
        )  # fmt: skip
    return raw


def _parts(path: Path, file: Path) -> list[Path]:
    parts = parquet_parts(file) if file.is_dir() else [file]
    if not parts:
        raise BadInput(f"--table {path}: a folder without Parquet files; expected a file, or a Parquet table in parts")
    return parts


def _content(path: Path, file: Path) -> tuple[str, bytes]:
    """What the file is and its bytes, unpacked; no bytes of a Parquet file. BadInput for what is no table."""
    with file.open("rb") as stream:
        if stream.read(len(PARQUET_START)) == PARQUET_START:
            return "Parquet", b""
    data = file.read_bytes()
    packed = next((opened for start, opened in _PACKED.items() if data.startswith(start)), None)
    if packed is not None:
        try:
            data = unpacked(packed(io.BytesIO(data)), max(ALWAYS_ALLOWED, MOST_UNFOLDED * len(data)))
        except ValueError as error:
            raise BadInput(f"--table {path}: can't be unpacked: {reason(error)}") from None
        if data.startswith(PARQUET_START):
            raise BadInput(f"--table {path}: a Parquet file that is packed once more; unpack it with gunzip or bunzip2")
    if _FITS.match(data):
        return "FITS", data
    for start, kind, advice in _OTHERS:
        if re.match(start, data[:512], re.DOTALL):
            raise BadInput(f"--table {path}: is {kind}; {_EXPECTED}: {advice}")
    return _text_kind(path, data), data


def _text_kind(path: Path, data: bytes) -> str:
    try:
        start = decoded(data[: 2**16] if len(data) > 2**16 else data)[0].lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"--table {path}: can't be read as CSV: {reason(error)}") from None
    if "\0" in start:
        raise BadInput(f"--table {path}: starts with {data[:12]!r}, which is no table that is known; {_EXPECTED}")
    if not start.startswith("<"):
        return "text"
    if "votable" in start.lower():
        return "VOTable"
    raise BadInput(
        f"--table {path}: can't be read as VOTable: starts with {start[:40].split(chr(10))[0]!r}, "
        "which is a web page or other XML; expected a VOTABLE element"
    )


def _chosen(
    path: Path, tables: Iterable[tuple[int, RawTable]], which: str, suits: Callable[[Sequence[str]], int]
) -> RawTable:
    """The table that is named, else the first that suits best; of those that don't suit, the first with rows."""
    found = list(tables)
    if not found:
        raise BadInput(
            f"--table {path}: a file without a table; expected a table extension (FITS) or a TABLE (VOTable)"
        )
    listed = ", ".join(f"[{number}] {raw.label}".rstrip() for number, raw in found)[:500]
    wanted = [(number, raw) for number, raw in found if not which or which in (str(number), raw.label)]
    if not wanted:
        raise BadInput(f"--table {path}: has no table {which!r}; it has {listed}")
    number, raw = min(wanted, key=lambda one: (-int(suits(one[1].names)), one[1].rows == 0))
    if len(found) > 1:
        log.info(
            "%s: reads table [%d] of its %d: %s; `--table '%s[NUMBER]'` names another",
            path.name, number, len(found), listed, table_file(path),
        )  # fmt: skip
    return raw
