"""Parquet files that somebody else may have written: read whole only if they don't unfold to far more than they are."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MOST_UNFOLDED = 200  # times the file's own bytes; repeated values make tables of galaxies up to 20 times smaller
BATCH_ROWS = 8192
ALWAYS_ALLOWED = 2**28  # bytes that any file may unfold to
BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError)  # what pyarrow raises for a broken file

_TEXT_KINDS = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
)  # fmt: skip
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}


def check_unfolded(file: pq.ParquetFile, file_bytes: int) -> None:
    """Raise ArrowInvalid if, by the file's own account, its values take far more memory than it has bytes.

    Texts are counted as numbers into a list of distinct ones; `read_bounded` looks at their lengths, too.
    """
    schema, metadata, unfolded = file.schema, file.metadata, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in range(metadata.num_columns):
            chunk = group.column(column)
            width = _WIDTHS.get(chunk.physical_type) or schema.column(column).length
            unfolded += max(chunk.num_values * width, chunk.total_uncompressed_size)
    _check(max(unfolded, metadata.num_rows), file_bytes)


def read_bounded(source: Path | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table, all columns or some. Raises one of BROKEN for a file that is broken, a bomb, or lacks a column."""
    file_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
    with _reader(source, columns) as (file, schema):
        check_unfolded(file, file_bytes)
        return _plain(file.read(columns=schema.names), schema, file_bytes)


def bounded_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows in order, all columns or some, a few thousand at a time. Raises as `read_bounded` does."""
    file_bytes = path.stat().st_size
    with _reader(path, columns) as (file, schema):
        check_unfolded(file, file_bytes)
        for batch in file.iter_batches(BATCH_ROWS, columns=schema.names, use_threads=False):
            yield _plain(pa.Table.from_batches([batch]), schema, file_bytes)


@contextmanager
def _reader(source: Path | bytes, columns: Sequence[str] | None) -> Iterator[tuple[pq.ParquetFile, pa.Schema]]:
    """The file, which gives texts as dictionaries, and the columns to read as they are to be."""
    whole = pq.read_schema(_opened(source))
    missing = [name for name in columns or () if name not in whole.names]
    if missing:
        raise pa.ArrowInvalid(f"has no column {missing[0]!r}; it has {', '.join(whole.names)[:200]}")
    schema = pa.schema([whole.field(name) for name in (whole.names if columns is None else columns)], whole.metadata)
    nested = [field.name for field in schema if holds_texts(field.type)]
    if nested:
        raise pa.ArrowInvalid(f"column {nested[0]!r} holds lists of texts; expected numbers or texts")
    # As dictionaries, a text of a megabyte that comes a million times takes a megabyte.
    texts = [field.name for field in schema if is_text(field.type)]
    with pq.ParquetFile(_opened(source), read_dictionary=texts) as file:
        yield file, schema


def _plain(table: pa.Table, schema: pa.Schema, file_bytes: int) -> pa.Table:
    """The table with each text in its place, if they are not too many bytes then."""
    _check(sum(_text_bytes(table[field.name]) for field in schema if is_text(field.type)), file_bytes)
    return table.select(schema.names).cast(schema)


def _opened(source: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def is_text(kind: pa.DataType) -> bool:
    """Whether values are texts or bytes of any length, be it as a list of distinct ones."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return any(is_kind(kind) for is_kind in _TEXT_KINDS)


def holds_texts(kind: pa.DataType) -> bool:
    """Whether lists or records of this type have texts in them: their size can't be told before they are read."""
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    return any(is_text(one) or holds_texts(one) for one in inner)


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Bytes that a column of texts takes once each value has its own."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = (pc.binary_length(chunk.dictionary).take(chunk.indices) for chunk in column.chunks)
    return sum(pc.sum(part).as_py() or 0 for part in lengths)


def _check(unfolded: int, file_bytes: int) -> None:
    limit = max(ALWAYS_ALLOWED, MOST_UNFOLDED * file_bytes)
    if unfolded > limit:
        raise pa.ArrowInvalid(f"{file_bytes} bytes that unfold to {unfolded}, at most {limit} are read")
