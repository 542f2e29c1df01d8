"""Parquet tables of users: one file or a folder of parts, with the units that their writers state."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from photoz.artifacts.parquet import ALWAYS_ALLOWED, MOST_UNFOLDED, check_unfolded, is_boundless, read_bounded
from photoz.tables.raw_table import LARGE_ARRAY, RawTable
from photoz.tables.text import described
from photoz.tables.votable_check import look_through

PARQUET_START = b"PAR1"
_UNIT_KEYS = ("unit", "units", "tunit")
_PICTURE = re.compile("image|img|cutout|stamp|jpe?g|png|fits", re.IGNORECASE)
_LOGGED = {"_delta_log": "Delta Lake", ".hoodie": "Hudi", "metadata/*.metadata.json": "Iceberg"}
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def parquet_parts(folder: Path) -> list[Path]:
    """The Parquet files below a folder, `part.2` before `part.10`; nothing hidden, and no `_metadata`.

    ValueError for a folder whose files are not all of its present rows.
    """
    kept_by = next((kind for sign, kind in _LOGGED.items() if any(folder.glob(sign))), None)
    if kept_by is not None:
        raise ValueError(f"it is a table of {kept_by}, whose files hold deleted rows, too; export it as plain Parquet")
    if (folder / "collection.properties").is_file():
        raise ValueError(
            f"it is a HATS collection, a folder of catalogues; give the one that you mean: {_hats(folder)}"
        )
    found = [
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part[0] in "._" for part in file.relative_to(folder).parts) and _is_part(file)
    ]
    return sorted(found, key=lambda file: _natural(file.relative_to(folder).as_posix()))


def _hats(collection: Path) -> str:
    """The folder of a HATS collection's main catalogue, else all that it has."""
    properties = (collection / "collection.properties").read_text("utf-8", "replace")[:10000]
    named = re.search(r"(?m)^hats_primary_table_url *[=:] *([^\s/]+)/?\s*$", properties)
    if named and (collection / named[1]).is_dir():
        return f"--table {collection / named[1]}"
    inside = sorted(one.name for one in collection.iterdir() if one.is_dir())
    return ", ".join(inside)[:200] or "it has no folder"


def described_in(folder: Path) -> list[Path]:
    """The files of a folder of parts that describe its columns and have no rows."""
    return sorted(file for file in folder.rglob("_*metadata") if file.name in ("_metadata", "_common_metadata"))


def _is_part(file: Path) -> bool:
    if file.name == "data_thumbnail.parquet":  # of HATS catalogues: some rows once more
        return False
    if file.suffix.lower() in (".parquet", ".parq", ".pq"):
        return True
    with file.open("rb") as stream:
        return stream.read(len(PARQUET_START)) == PARQUET_START


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(digits or 0), other) for digits, other in re.findall(r"(\d+)|(\D+)", name)]


def read_parquet(path: Path, parts: list[Path]) -> RawTable:
    """The parts as one table. A column that a part lacks, or has with another type, can't be read."""
    schemas, rows = zip(*map(_schema_and_rows, parts), strict=True)
    partitions = [_partition(path, part) for part in parts]
    first = schemas[0].names
    others = dict.fromkeys(itertools.chain(*partitions, *(schema.names for schema in schemas)))
    names = (*first, *(name for name in others if name not in first))
    arrays = {field.name: str(field.type) for field in schemas[0] if _is_large(field.type) or _is_picture(field)}
    most = max(ALWAYS_ALLOWED, MOST_UNFOLDED * sum(part.stat().st_size for part in parts))

    def decode(place: int) -> pa.Array:
        chunks: list[pa.Array] = []
        for part, schema, count, partition in zip(parts, schemas, rows, partitions, strict=True):
            if names[place] in schema.names:
                chunks.append(_column(part, schema, names[place]))
            elif names[place] in partition:
                chunks.append(pa.repeat(pa.scalar(partition[names[place]], pa.string()), count))
            else:
                raise ValueError(f"is not in {part.name}, and other parts of the table have it; expected it in all")
            if sum(chunk.nbytes for chunk in chunks) > most:
                raise ValueError(f"takes more than {most} bytes in memory")
        return pa.concat_arrays(_one_type(chunks, parts))

    units = _units([*schemas, *map(pq.read_schema, described_in(path))])
    return RawTable(path, names, sum(rows), units, False, decode, arrays)


def _schema_and_rows(part: Path) -> tuple[pa.Schema, int]:
    schema = pq.read_schema(part)  # as it was written; a file opened for reading can be broken in more ways
    with pq.ParquetFile(part) as file:
        check_unfolded(file, part.stat().st_size)
        return schema, file.metadata.num_rows


def _column(part: Path, schema: pa.Schema, name: str) -> pa.Array:
    if schema.names.count(name) > 1:
        raise ValueError(f"is there twice in {part.name}")
    kind = schema.field(name).type
    if is_boundless(kind):
        raise ValueError(f"holds {kind}; expected numbers or texts")
    masked = f"{name}.mask"  # astropy's, where values under a mask are kept
    beside = [masked] if schema.names.count(masked) == 1 and pa.types.is_boolean(schema.field(masked).type) else []
    table = read_bounded(part, [name, *beside])
    column = table[name].combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if beside:
        column = pa.compute.if_else(table[masked].combine_chunks(), pa.scalar(None, column.type), column)
    return column


def _one_type(chunks: list[pa.Array], parts: list[Path]) -> list[pa.Array]:
    """The chunks, those of nothing but nulls with the others' type."""
    kinds = [(chunk.type, part) for chunk, part in zip(chunks, parts, strict=True) if chunk.null_count < len(chunk)]
    kind, where = kinds[0] if kinds else (chunks[0].type, parts[0])
    for other, part in kinds:
        wider = _wider(kind, other)
        if wider is None:
            raise ValueError(f"holds {kind} in {where.name} and {other} in {part.name}; expected one type")
        kind = wider
    return [chunk.cast(kind) if chunk.null_count < len(chunk) else pa.nulls(len(chunk), kind) for chunk in chunks]


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A type that holds all values of both as they are; None if there is none."""
    both = {one, other}
    if len(both) == 1:
        return one
    if all(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view() for kind in both):
        return pa.large_string()
    if all(map(pa.types.is_floating, both)):
        return pa.float64() if pa.float64() in both else pa.float32()
    if all(map(pa.types.is_unsigned_integer, both)):
        return pa.uint64()
    return pa.int64() if all(map(pa.types.is_integer, both)) and pa.uint64() not in both else None


def _partition(folder: Path, part: Path) -> dict[str, str | None]:
    """The columns that are written as folders: {"split": "train"} for `split=train/0.parquet`."""
    if folder == part:
        return {}
    pairs = (name.partition("=") for name in part.relative_to(folder).parts[:-1] if "=" in name)
    return {unquote(key): None if value == _NO_VALUE else unquote(value) for key, _, value in pairs}


def _is_large(kind: pa.DataType) -> bool:
    """Whether a column may hold an image in each row."""
    if isinstance(kind, pa.BaseExtensionType):
        return _is_large(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        return bool(kind.list_size >= LARGE_ARRAY or pa.types.is_nested(kind.value_type))
    if pa.types.is_struct(kind):  # as Hugging Face writes images: their bytes, and the file's name
        return any(pa.types.is_binary(field.type) or _is_large(field.type) for field in kind.fields)
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind))


def _is_picture(field: pa.Field) -> bool:
    is_bytes = pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
    return bool(is_bytes and _PICTURE.search(field.name))


def _units(schemas: Iterable[pa.Schema]) -> dict[str, str]:
    """Each column's unit; where two places state different ones, both, which no one takes for a unit."""
    stated: dict[str, dict[str, None]] = {}
    for schema in schemas:
        for name, unit in _stated_units(schema):
            if unit and isinstance(unit, str) and schema.names.count(name) == 1:
                stated.setdefault(name, {})[unit.strip()] = None
    return {name: " and ".join(units) for name, units in stated.items()}


def _stated_units(schema: pa.Schema) -> Iterator[tuple[str, object]]:
    """By the field's own metadata, astropy, TOPCAT and others' VOParquet, or the attributes of pandas."""
    for field in schema:
        for key, value in (field.metadata or {}).items():
            if key.decode("utf-8", "replace").lower() in _UNIT_KEYS:
                yield field.name, value.decode()
    metadata = schema.metadata or {}
    if b"table_meta_yaml" in metadata:
        yield from described(metadata[b"table_meta_yaml"].decode())[0]
    if b"IVOA.VOTable-Parquet.content" in metadata:
        content = metadata[b"IVOA.VOTable-Parquet.content"]
        for table in look_through(content, ALWAYS_ALLOWED):
            yield from ((field.name, field.unit) for field in table.fields)
    for key in (b"PANDAS_ATTRS", b"units", b"unit"):
        try:
            said = json.loads(metadata.get(key, b"{}"))
        except (ValueError, RecursionError):
            continue
        for inner in (said, *(said.get(one) for one in _UNIT_KEYS)) if isinstance(said, dict) else ():
            yield from inner.items() if isinstance(inner, dict) else ()
