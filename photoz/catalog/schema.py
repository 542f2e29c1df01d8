"""Columns of a catalogue: names, types, units and meanings, and the bytes of its Parquet file."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from photoz.artifacts.parquet import parquet_bytes
from photoz.surveys.survey import Column

# name -> (type, unit, description)
_FIXED: dict[str, tuple[pa.DataType, str, str]] = {
    "object_id": (pa.string(), "", "unique name of the galaxy"),
    "ra": (pa.float64(), "deg", "right ascension, ICRS"),
    "dec": (pa.float64(), "deg", "declination, ICRS"),
    "z_spec": (pa.float64(), "", "spectroscopic redshift; null if photometric only"),
    "z_spec_err": (pa.float64(), "", "standard error of z_spec"),
    "ebv": (pa.float32(), "mag", "Galactic reddening E(B-V)"),
    "healpix": (pa.int32(), "", "HEALPix cell, nside 64, nested, ICRS"),
    "split": (pa.string(), "", "train, val or test; null if photometric only"),
    "block": (pa.string(), "", "the user's own block of sky; no block is in two splits"),
    "z_phot_survey": (pa.float64(), "", "the survey's own photometric redshift, to compare with"),
    "image": (pa.string(), "", "image file, relative to the table's folder"),
    "image_sha256": (pa.string(), "", "SHA-256 of the image file; null if there is none"),
}
_LEADING = ("object_id", "ra", "dec", "z_spec", "z_spec_err")
_BEFORE_SURVEY = ("ebv", "healpix", "split", "block")  # then the survey's own columns
_TRAILING = tuple(name for name in _FIXED if name not in (*_LEADING, *_BEFORE_SURVEY))
_ALWAYS = (*_LEADING[:4], "healpix", "split")


def _field(name: str, survey_columns: Mapping[str, Column]) -> pa.Field:
    own = survey_columns.get(name)
    kind, unit, description = (
        (pa.type_for_alias(own.type), own.unit, own.description) if own else _FIXED.get(name) or _magnitude(name)
    )
    nullable = name not in ("object_id", "ra", "dec", "healpix")
    metadata = {"description": description} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


def _magnitude(name: str) -> tuple[pa.DataType, str, str]:
    if name.startswith("mag_err_"):
        return pa.float32(), "mag", f"standard error of mag_{name.removeprefix('mag_err_')}"
    return pa.float32(), "mag", f"AB magnitude in {name.removeprefix('mag_')}, dereddened; null if not measured"


def is_magnitude(name: str) -> bool:
    """Whether a column is mag_<band> or mag_err_<band>."""
    return name.startswith("mag_") and name not in ("mag_", "mag_err_")


def _schema(names: list[str], about: dict[str, Any], survey_columns: Mapping[str, Column]) -> pa.Schema:
    """The schema of a catalogue with these columns, in the catalogue's order; `about` goes into its metadata."""
    magnitudes = [name for name in names if is_magnitude(name)]
    values = [name for name in magnitudes if not name.startswith("mag_err_")]
    errors = [name for name in magnitudes if name.startswith("mag_err_")]
    order = (*_LEADING, *values, *errors, *_BEFORE_SURVEY, *survey_columns, *_TRAILING)
    kept = [name for name in order if name in names or name in _ALWAYS]
    metadata = {"photoz": json.dumps(about, sort_keys=True)}
    return pa.schema([_field(name, survey_columns) for name in kept], metadata=metadata)


def conform(rows: pa.Table, about: dict[str, Any], survey_columns: Mapping[str, Column]) -> pa.Table:
    """`rows` with the catalogue's columns, order and types; a column it must have and lacks becomes null."""
    schema = _schema(rows.column_names, about, survey_columns)
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        column = rows[field.name]
        narrowed = pa.types.is_floating(column.type) and pa.types.is_floating(field.type)
        columns.append(column.cast(field.type, safe=not narrowed))
    return pa.Table.from_arrays(columns, schema=schema)


def encode(catalog: pa.Table) -> bytes:
    """The catalogue as Parquet."""
    return parquet_bytes(
        catalog,
        row_group_size=65_536,
        compression="zstd",
        compression_level=3,
        version="2.6",
        data_page_version="1.0",
        use_dictionary=["split", "healpix"],
        write_statistics=True,
        store_schema=True,
    )
