"""A user's own table: columns found by name, converted to the catalogue's, and checked before anything is built."""

import hashlib
import logging
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import astropy.units as u
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from photoz.errors import BadInput
from photoz.survey.columns import TEXT_COLUMNS, is_ours
from photoz.survey.table_formats import RawTable, read_raw, table_digest, table_file
from photoz.survey.table_ids import as_text, checked_ids, refuse_rounded_ids

log = logging.getLogger("photoz.catalog")

Z_SPEC_RANGE = (-0.01, 20.0)  # from the largest blueshifts of galaxies to beyond any measured redshift
MAGNITUDE_LIMIT = 60.0  # beyond it a magnitude is a placeholder: -9999, -99, 99
_LONGEST_PATH, _LONGEST_NAME = 4000, 255  # bytes, of Linux
_NUMBER = re.compile(
    r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(inf|infinity|nan)$|^None$", re.ASCII | re.IGNORECASE
)
_USUAL_NAMES = {
    "ra": ("ra", "raj2000", "ra_j2000", "radeg", "ra_deg", "_raj2000", "ra_icrs", "alpha", "alpha_j2000"),
    "dec": ("dec", "de", "dej2000", "dec_j2000", "decj2000", "dedeg", "dec_deg", "_dej2000", "de_icrs", "delta"),
    "z_spec": ("z_spec", "zspec", "redshift", "specz", "z", "z_best", "spec_z"),
    "object_id": ("object_id", "objid", "id", "source_id", "name", "targetid"),
    "image": ("image", "file", "filename", "path", "jpeg", "npy", "cutout"),
}


@dataclass(frozen=True)
class UserTable:
    """Rows with the catalogue's column names (`object_id` only if the file has ids), the file's digest and folder."""

    rows: pa.Table
    sha256: str
    folder: Path


def read_table(path: Path, columns: Mapping[str, str]) -> UserTable:
    """Read and check a table; `columns` maps our names to the table's, each optionally `NAME:unit`.

    Angles come back in degrees. Raises BadInput, one line that says what to do, for anything that can't be right.
    """
    raw = read_raw(path, lambda names: _has_positions(names, columns))
    found = _find_columns(path, raw, columns)
    rows: dict[str, pa.Array] = {}
    if "object_id" in found:
        rows["object_id"] = checked_ids(path, found["object_id"][0], raw.column(found["object_id"][0]))
    else:
        refuse_rounded_ids(path, raw)
    for ours, (theirs, unit) in found.items():
        if ours in TEXT_COLUMNS:
            rows[ours] = as_text(path, theirs, raw.column(theirs))
        elif ours != "object_id":
            rows[ours] = _number(path, ours, theirs, raw.column(theirs), unit)
    _check_positions(path, rows)
    _check_redshifts(path, rows)
    _blank_placeholders(path, rows)
    _check_splits(path, rows)
    folder = table_file(path).resolve().parent
    if "image" in rows:
        rows["image_sha256"] = _image_digests(path, folder, rows["image"])
    return UserTable(pa.table(rows), table_digest(path), folder)


def _has_positions(names: Sequence[str], mapping: Mapping[str, str]) -> bool:
    """Whether a table with these columns can be the one that is meant, where a file has several."""
    wanted = [mapping.get(ours, ours) for ours in ("ra", "dec")]
    return all(name in names or name.rpartition(":")[0] in names for name in wanted)


def _find_columns(path: Path, raw: RawTable, mapping: Mapping[str, str]) -> dict[str, tuple[str, str | None]]:
    """{our name: (the table's name, unit or None)} of every column that is used."""
    present = _listed(raw.names)
    found = {name: (name, raw.units.get(name)) for name in raw.names if is_ours(name) and name not in mapping}
    for ours, theirs in mapping.items():
        name, unit = theirs, raw.units.get(theirs)
        if name not in raw.names and ":" in theirs:
            name, _, unit = theirs.rpartition(":")
        if name not in raw.names:
            raise BadInput(f"--columns {ours}={theirs}: {path.name} has no column {name!r}; it has {present}")
        found[ours] = (name, unit)
    missing = [ours for ours in ("ra", "dec") if ours not in found]
    if missing:
        raise BadInput(
            f"--table {path}: no column {' and no column '.join(missing)} (it has {present}); "
            f"expected ra and dec in degrees, {_suggestion(missing, raw)}"
        )
    _check_units(path, raw, found)
    used = {theirs for theirs, _ in found.values()}
    for ours in ("z_spec", "object_id", "image"):
        likely = _likely(ours, [name for name in raw.names if name not in used])
        if ours not in found and likely:
            log.info("%s: no column %s; if %r is it, say --columns %s=%s", path.name, ours, likely, ours, likely)
    return found


def _listed(names: Iterable[str]) -> str:
    """The names for a message that stays one line, however many there are."""
    return textwrap.shorten(", ".join(names), 500, placeholder=" …")


def _suggestion(missing: list[str], raw: RawTable) -> str:
    likely = {ours: _likely(ours, list(raw.names)) for ours in missing}
    return "map yours with --columns " + ",".join(f"{ours}={theirs or 'NAME'}" for ours, theirs in likely.items())


def _likely(ours: str, names: list[str]) -> str | None:
    lowered = {name.lower(): name for name in reversed(names)}
    return next((lowered[usual] for usual in _USUAL_NAMES[ours] if usual in lowered), None)


def _check_units(path: Path, raw: RawTable, found: Mapping[str, tuple[str, str | None]]) -> None:
    for ours, (theirs, unit) in found.items():
        if ours in ("ra", "dec"):
            if unit is None and raw.states_units:
                raise BadInput(
                    f"--table {path}: column {theirs!r} states no unit; "
                    f"expected an angle: say which with --columns {ours}={theirs}:deg"
                )
            if unit is not None and not _parse_unit(unit).is_equivalent(u.deg):
                raise BadInput(
                    f"--table {path}: column {theirs!r} is in {unit[:60]!r}, which is no angle; "
                    f"expected deg, rad or hourangle: correct it, or say --columns {ours}={theirs}:hourangle"
                )
        elif ours.startswith("mag_") or ours == "ebv":
            _expect_unit(path, theirs, unit, ("mag", "mag(AB)", "ABmag"), "magnitudes (AB); convert fluxes first")
        elif ours in ("z_spec", "z_spec_err", "z_phot_survey"):
            _expect_unit(path, theirs, unit, (), "a redshift without unit; divide velocities by c first")


def _parse_unit(text: str) -> u.UnitBase:
    return u.Unit(text, parse_strict="silent")


def _expect_unit(path: Path, column: str, unit: str | None, allowed: tuple[str, ...], expected: str) -> None:
    if unit is None or unit in allowed or _parse_unit(unit) == u.dimensionless_unscaled:
        return
    raise BadInput(f"--table {path}: column {column!r} is in {unit[:60]!r}; expected {expected}")


def _number(path: Path, ours: str, theirs: str, column: pa.Array, unit: str | None) -> pa.Array:
    """The column as float64, degrees where it is an angle; NaN becomes null."""
    if pa.types.is_nested(column.type):
        raise BadInput(f"--table {path}: column {theirs!r} holds {column.type}; expected numbers")
    try:
        values = column.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        texts = [str(value) for value in column.to_pylist()]
        row = next((row for row, text in enumerate(texts) if not _NUMBER.match(text)), 0)
        hint = " (decimal degrees)" if ours in ("ra", "dec") else ""
        raise BadInput(
            f"--table {path}: {theirs} = {texts[row][:60]!r} in row {row + 1}; expected a number{hint}"
        ) from None
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    if ours in ("ra", "dec") and unit is not None:
        factor = _parse_unit(unit).to(u.deg)
        values = values if factor == 1 else pc.multiply(values, factor)
    return values


def _numpy(column: pa.Array) -> npt.NDArray[np.float64]:
    """NaN where null."""
    values: npt.NDArray[np.float64] = column.to_numpy(zero_copy_only=False)
    return values


def _check_positions(path: Path, rows: Mapping[str, pa.Array]) -> None:
    for name, low, high in (("ra", 0.0, 360.0), ("dec", -90.0, 90.0)):
        values = _numpy(rows[name])
        wrong = np.flatnonzero(~((values >= low) & (values <= high)))
        if len(wrong):
            value = values[wrong[0]]
            said = "is missing or not a number" if np.isnan(value) else f"= {value:g}"
            raise BadInput(
                f"--table {path}: {name} {said} in row {wrong[0] + 1} ({len(wrong)} such rows); "
                f"expected {low:g} to {high:g} degrees: correct or remove them"
            )


def _check_redshifts(path: Path, rows: Mapping[str, pa.Array]) -> None:
    low, high = Z_SPEC_RANGE
    if "z_spec" in rows:
        values = _numpy(rows["z_spec"])
        wrong = np.flatnonzero((values < low) | (values > high))
        if len(wrong):
            raise BadInput(
                f"--table {path}: z_spec = {values[wrong[0]]:g} in row {wrong[0] + 1} ({len(wrong)} such rows); "
                f"expected {low:g} to {high:g}, or an empty cell where there is no redshift"
            )
    if "z_spec_err" in rows:
        errors = _numpy(rows["z_spec_err"])
        wrong = np.flatnonzero((errors < 0) | np.isinf(errors))
        if len(wrong):
            raise BadInput(
                f"--table {path}: z_spec_err = {errors[wrong[0]]:g} in row {wrong[0] + 1} ({len(wrong)} such rows); "
                "expected 0 or more, or an empty cell: negative errors usually mark failed fits, so remove those rows"
            )


def _blank_placeholders(path: Path, rows: dict[str, pa.Array]) -> None:
    """Null for magnitudes that stand for "not measured", such as -9999; also for infinite numbers."""
    for name, column in rows.items():
        if not (name.startswith("mag_") or name in ("ebv", "z_phot_survey")):
            continue
        measured = pc.less(pc.abs(column), MAGNITUDE_LIMIT)
        rows[name] = pc.if_else(measured, column, pa.scalar(None, pa.float64()))
        blanked = rows[name].null_count - column.null_count
        if blanked:
            log.info("%s: %d values of %s mean `not measured` (such as -9999): now null", path.name, blanked, name)


def _check_splits(path: Path, rows: Mapping[str, pa.Array]) -> None:
    if "split" in rows:
        wrong = sorted({str(value) for value in rows["split"].to_pylist()} - {"train", "val", "test", "None", ""})
        if wrong:
            raise BadInput(
                f"--table {path}: split = {wrong[0]!r}; expected train, val or test "
                "(a column that numbers areas of sky is a block: map it with --columns block=NAME)"
            )
    if "block" in rows and rows["block"].null_count:
        raise BadInput(
            f"--table {path}: block is empty in {rows['block'].null_count} rows; expected a block for every galaxy"
        )


def _image_digests(path: Path, folder: Path, images: pa.Array) -> pa.Array:
    """SHA-256 of each image file, null where there is none; BadInput if all are missing, or one is elsewhere."""
    names: list[str | None] = images.to_pylist()
    for row, name in enumerate(names):
        if name and _escapes(folder, name):
            raise BadInput(
                f"--table {path}: image = {name[:200]!r} in row {row + 1} is outside the table's folder, or no path; "
                f"expected a path relative to {folder}"
            )
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = list(pool.map(lambda name: _file_digest(folder / name) if name else None, names))
    if not any(digests):
        first = next(filter(None, names), None)
        looked = f"looked for {folder / first}" if first else "the column is empty"
        raise BadInput(f"--table {path}: none of the {len(names)} images is there ({looked}); check the image column")
    missing = digests.count(None)
    if missing:
        log.warning("%s: %d of %d images are missing; shard will list them as failures", path.name, missing, len(names))
    return pa.array(digests, pa.string())


def _escapes(folder: Path, name: str) -> bool:
    """Whether a name can't be a file's in the folder, or leads out of it, be it through a link."""
    pure = PurePosixPath(name.replace("\\", "/"))
    depth = 0
    for part in pure.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    if pure.is_absolute() or "\0" in name or len(os.fsencode(name)) > _LONGEST_PATH:
        return True
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in pure.parts):
        return True
    return not Path(os.path.realpath(folder / name)).is_relative_to(folder)


def _file_digest(file: Path) -> str | None:
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
