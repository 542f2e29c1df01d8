"""Parquet files that somebody else may have written: read whole only if they don't unfold to far more than they are."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def check_unfolded(file: pq.ParquetFile, file_bytes: int) -> None:
    """Raise ArrowInvalid if, by the file's own account, its values take far more memory than it has bytes.

    Texts are counted as numbers into a list of distinct ones; `read_bounded` looks at their lengths, too.
    """
    # Rows and types, and nothing of single columns: what broken files say of those ends the process inside pyarrow.
    rows = file.metadata.num_rows * sum(1 + _row_bytes(field.type) for field in file.schema_arrow)
    _check(max(rows, sum(_group_bytes(file))), file_bytes)


def _group_bytes(file: pq.ParquetFile) -> list[int]:
    """Bytes of each row group's pages once they are decompressed."""
    return [file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups)]


def _row_bytes(kind: pa.DataType) -> int:
    """Bytes that one value takes in memory, texts and lists without what is in them."""
    if isinstance(kind, pa.BaseExtensionType):
        return _row_bytes(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _row_bytes(kind.value_type)
    try:
        return -(-int(kind.bit_width) // 8)
    except ValueError:  # of no fixed width
        return 4


def read_bounded(source: Path | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table, all columns or some. Raises one of BROKEN for a file that is broken, a bomb, or lacks a column."""
    file_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
    with _reader(source, columns) as (file, schema):
        check_unfolded(file, file_bytes)
        return _plain(file.read(columns=schema.names), schema, file_bytes)


def bounded_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows in order, all columns or some, at most some thousands at a time. Raises as `read_bounded` does."""
    file_bytes = path.stat().st_size
    # Lists of distinct texts would be those of a whole row group, and threads have memory each.
    with _reader(path, columns, distinct=False) as (file, schema):
        check_unfolded(file, file_bytes)
        for batch in file.iter_batches(_batch_rows(file), columns=schema.names, use_threads=False):
            yield _plain(pa.Table.from_batches([batch]), schema, file_bytes)


def _batch_rows(file: pq.ParquetFile) -> int:
    """So few rows that they stay within bounds if each holds all the text of its row group."""
    return max(16, min(BATCH_ROWS, 4 * ALWAYS_ALLOWED // max(1, *_group_bytes(file), 1)))


@contextmanager
def _reader(
    source: Path | bytes, columns: Sequence[str] | None, distinct: bool = True
) -> Iterator[tuple[pq.ParquetFile, pa.Schema]]:
    """The file and the columns to read, as they are to be; it gives texts as lists of `distinct` ones if asked."""
    whole = pq.read_schema(_opened(source))
    wanted = whole.names if columns is None else columns
    if any(whole.names.count(name) > 1 for name in wanted):
        raise pa.ArrowInvalid("has a column twice; expected each name once")
    missing = [name for name in columns or () if name not in whole.names]
    if missing:
        raise pa.ArrowInvalid(f"has no column {missing[0]!r}; it has {', '.join(whole.names)[:200]}")
    schema = pa.schema([whole.field(name) for name in wanted], whole.metadata)
    check_types(schema)
    # As dictionaries, a text of a megabyte that comes a million times takes a megabyte.
    texts = [field.name for field in schema if is_text(field.type)] if distinct else None
    with pq.ParquetFile(_opened(source), read_dictionary=texts) as file:
        yield file, schema


def _plain(table: pa.Table, schema: pa.Schema, file_bytes: int) -> pa.Table:
    """The table with each text in its place, if they are not too many bytes then."""
    if set(table.column_names) != set(schema.names):  # a footer names its columns in two places
        raise pa.ArrowInvalid(f"has columns {', '.join(table.column_names)[:200]}; expected {', '.join(schema.names)}")
    table.validate(full=True)  # texts that are no UTF-8, numbers of distinct texts that there are not
    _check(sum(_text_bytes(table[field.name]) for field in schema if is_text(field.type)), file_bytes)
    return table.select(schema.names).cast(pa.schema([_without_view(field) for field in schema], schema.metadata))


def _without_view(field: pa.Field) -> pa.Field:
    """Texts as polars writes them are read as plain ones: nothing else can be made of a list of distinct ones."""
    if pa.types.is_string_view(field.type):
        return field.with_type(pa.large_string())
    return field.with_type(pa.large_binary()) if pa.types.is_binary_view(field.type) else field


def _opened(source: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def is_text(kind: pa.DataType) -> bool:
    """Whether values are texts or bytes of any length, be it as a list of distinct ones."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return any(is_kind(kind) for is_kind in _TEXT_KINDS)


def is_boundless(kind: pa.DataType) -> bool:
    """Whether it is any nested type but lists of so many numbers: their size can't be told before they are read.

    (Records without fields make pyarrow take memory without end.)
    """
    if isinstance(kind, pa.BaseExtensionType):
        return is_boundless(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return is_boundless(kind.value_type)
    if pa.types.is_fixed_size_list(kind) and kind.list_size > 0:
        return is_text(kind.value_type) or pa.types.is_nested(kind.value_type)
    return bool(pa.types.is_nested(kind))


def check_types(schema: pa.Schema) -> None:
    """Raise ArrowInvalid for a column of a boundless type."""
    for field in schema:
        if is_boundless(field.type):
            raise pa.ArrowInvalid(f"column {field.name!r} holds {field.type}; expected numbers or texts")


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


def parquet_bytes(rows: pa.Table, **options: Any) -> bytes:
    """A table as a Parquet file, with pyarrow's options; the same rows give the same bytes."""
    file = io.BytesIO()
    pq.write_table(rows.combine_chunks(), file, **options)
    return file.getvalue()
