"""A user's own table: columns found by name, converted to the catalogue's, and checked before anything is built."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from photoz.errors import BadInput
from photoz.tables.columns import TEXT_COLUMNS
from photoz.tables.formats import read_raw, table_digest, table_file
from photoz.tables.ids import checked_ids, refuse_rounded_ids
from photoz.tables.images import image_columns, image_root
from photoz.tables.magnitudes import magnitudes, reddening
from photoz.tables.names import Source, find_columns, wanted_columns
from photoz.tables.positions import positions
from photoz.tables.redshifts import (
    check_errors,
    check_median,
    check_redshifts,
    clean_redshifts,
    repeated_values,
    say_repeated,
)
from photoz.tables.rows import Floats, TableRows, from_numpy, to_numpy
from photoz.tables.units import is_redshift, is_velocity
from photoz.tables.where import select_rows


@dataclass(frozen=True)
class UserTable:
    """Rows with the catalogue's column names (`object_id` only if the file has ids), and how many each cut left.

    `sha256` is the file's; `folder` is what image names are relative to; `names_sha256` is of the image names, where
    they are stored otherwise than the file gives them.
    """

    rows: pa.Table
    cuts: list[tuple[str, int]]
    sha256: str
    folder: Path
    names_sha256: str | None = None


def read_table(
    path: Path,
    columns: Mapping[str, str],
    *,
    where: str | None = None,
    images_from: str | None = None,
    drop_repeated_z: bool = False,
    allow_high_z: bool = False,
) -> UserTable:
    """Read and check a table; `columns` maps our names to the table's, each optionally `NAME:unit`.

    Angles come back in degrees, fluxes as AB magnitudes. Raises BadInput, one line that says what to do, for
    anything that can't be right.
    """
    raw = read_raw(path, lambda names: wanted_columns(names, columns))
    table = TableRows(path, raw)
    cuts = [("rows of the table", raw.rows)]
    if where is not None:
        table = select_rows(table, where)
        cuts.append((f"where {where}", table.rows))
        if not cuts[-1][1]:
            raise BadInput(f"--where {where!r}: no row of {path.name} meets it ({raw.rows} rows); widen the condition")
    sources = find_columns(table, columns)
    rows: dict[str, pa.Array] = {}
    if "object_id" in sources:
        rows["object_id"] = checked_ids(table, sources["object_id"].column)
    else:
        refuse_rounded_ids(table)
    rows |= positions(table, sources)
    rows |= _redshifts(table, sources)
    keep = _kept_redshifts(table, sources, rows.get("z_spec"), allow_high_z, drop_repeated_z)
    rows |= magnitudes(table, {ours: source for ours, source in sources.items() if ours.startswith("mag_")})
    if "ebv" in sources:
        rows["ebv"] = reddening(table, sources["ebv"])
    rows |= {ours: table.text(sources[ours].column) for ours in TEXT_COLUMNS if ours in sources}
    _check_splits(table, rows)
    folder = image_root(table_file(path), images_from)
    stored_names = None
    if "image" in rows:
        given = rows["image"]
        rows |= image_columns(table, given, folder, images_from)
        stored_names = rows["image"] if pc.any(pc.not_equal(given, rows["image"])).as_py() else None
    made = pa.table(rows)
    if drop_repeated_z:
        made = made.filter(pa.array(keep))
        cuts.append(("no exactly repeated z_spec", made.num_rows))
    return UserTable(made, cuts, table_digest(path), folder, _digest_of(stored_names))


def _redshifts(table: TableRows, sources: Mapping[str, Source]) -> dict[str, pa.Array]:
    """`z_spec`, `z_spec_err` and `z_phot_survey`, as far as they are there, null where not known."""
    values: dict[str, Floats] = {}
    for ours in ("z_spec", "z_phot_survey", "z_spec_err"):
        if ours in sources:
            name, unit = sources[ours][:2]
            if not is_redshift(unit):
                advice = f"map a column of redshifts, or, if it holds them, say --columns {ours}={name}:1"
                raise table.refusal(
                    f"column {name!r} is in {str(unit)[:60]!r}; expected a redshift without unit; "
                    f"{'divide velocities by c first' if is_velocity(str(unit)) else advice}"
                )
            values[ours] = to_numpy(table.floats(name))
    for ours in ("z_spec", "z_phot_survey"):
        if ours in values:
            values[ours] = clean_redshifts(table, ours, values[ours])
    if "z_spec" in values:
        check_redshifts(table, values["z_spec"])
    if "z_spec_err" in values:
        values["z_spec_err"] = check_errors(table, values["z_spec_err"], values.get("z_spec"))
    return {ours: from_numpy(column) for ours, column in values.items()}


def _kept_redshifts(
    table: TableRows, sources: Mapping[str, Source], z_spec: pa.Array | None, allow_high: bool, drop: bool
) -> npt.NDArray[np.bool_]:
    """Which rows stay: exactly repeated redshifts get a warning, or are dropped. BadInput for a median above 7."""
    if z_spec is None:
        return np.ones(table.rows, dtype=np.bool_)
    values = to_numpy(z_spec)
    repeated = repeated_values(values)
    say_repeated(table, repeated, drop)
    keep = ~np.isin(values, list(repeated)) if drop else np.ones(len(values), dtype=np.bool_)
    if not allow_high:
        check_median(table, values[keep], sources["z_spec"].column)
    return keep


def _digest_of(names: pa.Array | None) -> str | None:
    return None if names is None else hashlib.sha256("\n".join(map(str, names.to_pylist())).encode()).hexdigest()


def _check_splits(table: TableRows, rows: Mapping[str, pa.Array]) -> None:
    if "split" in rows:
        wrong = sorted({str(value) for value in rows["split"].to_pylist()} - {"train", "val", "test", "None", ""})
        if wrong:
            raise table.refusal(
                f"split = {wrong[0]!r}; expected train, val or test "
                "(a column that numbers areas of sky is a block: map it with --columns block=NAME)"
            )
    if "block" in rows and rows["block"].null_count:
        raise table.refusal(f"block is empty in {rows['block'].null_count} rows; expected a block for every galaxy")
