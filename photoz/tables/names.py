"""Which of a table's columns is which of ours: by the user's mapping, else by the names that catalogues use."""

import logging
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from photoz.tables.columns import NUMBER_COLUMNS, TEXT_COLUMNS, is_ours
from photoz.tables.rows import TableRows
from photoz.tables.units import is_no_unit

log = logging.getLogger("photoz.catalog")

LEFT_OUT = "-"  # --columns z_spec=- leaves a column out
# Names that mean one thing wherever they stand, in any case.
_STANDARD = {
    "ra": "ra raj2000 ra_j2000 radeg ra_deg ra_icrs _raj2000 alpha_j2000 right_ascension rightascension",
    "dec": "dec dej2000 decj2000 dec_j2000 de_j2000 dedeg decdeg de_deg dec_deg de_icrs dec_icrs _dej2000 delta_j2000 "
    "declination",
    "z_spec": "z_spec zspec redshift specz spec_z spec_redshift redshift_spec specredshift",
}
# Names that may mean it: worth a hint, where nothing says otherwise.
_LIKELY = {
    "ra": "alpha _ra target_ra mean_ra mean_fiber_ra",
    "dec": "de decl delta _de _dec target_dec mean_dec mean_fiber_dec",
    "z_spec": "z z_best zbest zsp z_sp z_helio zhelio z_cmb zcmb",
    "object_id": "objid obj_id id source_id name targetid specobjid",
    "image": "file filename path jpeg npy cutout",
}
# The parts in which the CDS writes sexagesimal positions, a column each.
_PARTS = {"ra": ("RAh", "RAm", "RAs"), "dec": ("DE-", "DEd", "DEm", "DEs")}
_BESIDE_Z = set("ugrixyjhk")  # bands, or coordinates: a z beside one of them is no redshift
_BAND = re.compile(r"mag_(err_)?[ugrizy]", re.IGNORECASE)


class Source(NamedTuple):
    """Where one of our columns comes from: the table's column, and its unit if the file or the user says one."""

    column: str
    unit: str | None
    asked: bool = False  # the user mapped it
    unit_given: bool = False  # the user named the unit


def find_columns(rows: TableRows, mapping: Mapping[str, str]) -> dict[str, Source]:
    """{our name: its source} of every column that is used. BadInput for a mapping or a table that can't work."""
    mapped = {ours: _mapped(rows, ours, theirs) for ours, theirs in mapping.items() if theirs != LEFT_OUT}
    taken = {source.column for source in mapped.values()}
    # Pixels in a column `image` are no file names: the reader has said what to do with them.
    free = [name for name in rows.names if name not in taken and not (name == "image" and name in rows.raw.arrays)]
    found = {}
    for ours, name in _by_name(rows, free, set(mapping)).items():
        found[ours] = Source(name, rows.raw.units.get(name))
    found |= mapped
    for ours, parts in _PARTS.items():
        if len(set(parts) & set(rows.names)) > 1 and (ours not in found or found[ours].column in parts):
            raise rows.refusal(
                f"{ours} is spread over the columns {', '.join(name for name in parts if name in rows.names)}; "
                "expected one column: VizieR offers _RAJ2000 and _DEJ2000 in degrees, or add such columns"
            )
    missing = [ours for ours in ("ra", "dec") if ours not in found]
    if missing:
        hints = ",".join(f"{ours}={_likely(ours, free, rows.names) or 'NAME'}" for ours in missing)
        raise rows.refusal(
            f"no column {' and no column '.join(missing)} (it has {listed(rows.names)}); "
            f"expected ra and dec in degrees, map yours with --columns {hints}"
        )
    for ours in ("z_spec", "object_id", "image"):
        likely = _likely(
            ours, [name for name in free if name not in {source.column for source in found.values()}], rows.names
        )
        if ours not in found and ours not in mapping and likely:
            log.info("%s: no column %s; if %r is it, say --columns %s=%s", rows.path.name, ours, likely, ours, likely)
    return found


def wanted_columns(names: Sequence[str], mapping: Mapping[str, str]) -> int:
    """How many of the columns that are asked for a table has, where a file has several; 0 without positions."""
    lowered = {name.lower() for name in names}
    mapped = {ours for ours, theirs in mapping.items() if theirs == LEFT_OUT or _split(theirs, names) is not None}
    standard = {ours for ours in ("ra", "dec") if ours not in mapping and lowered & set(_STANDARD[ours].split())}
    found = mapped | standard
    return len(found) if {"ra", "dec"} <= found else 0


def listed(names: Iterable[str]) -> str:
    """The names for a message that stays one line, however many there are."""
    return textwrap.shorten(", ".join(names), 500, placeholder=" …")


def _mapped(rows: TableRows, ours: str, theirs: str) -> Source:
    if theirs in rows.names:
        return Source(theirs, rows.raw.units.get(theirs), asked=True)
    split = _split(theirs, rows.names)
    if split is None:
        raise rows.refusal(
            f"--columns {ours}={theirs}: there is no column {theirs!r}; the table has {listed(rows.names)}"
        )
    name, unit = split
    if not unit.strip() or ours in ("object_id", *TEXT_COLUMNS):
        expected = "a unit after the colon, such as deg" if not unit.strip() else f"no unit, as {ours} has none"
        raise rows.refusal(f"--columns {ours}={theirs}: expected {expected}")
    stated = rows.raw.units.get(name)
    if not is_no_unit(stated) and stated != unit:
        log.warning("%s: column %r states %s; taken as %s, as --columns says", rows.path.name, name, stated, unit)
    return Source(name, unit.strip(), asked=True, unit_given=True)


def _split(theirs: str, names: Sequence[str]) -> tuple[str, str] | None:
    """(column, unit after the colon) of what a mapping names; None if no column begins it."""
    ends = [end for end in range(len(theirs), 0, -1) if end == len(theirs) or theirs[end] == ":"]
    return next(((theirs[:end], theirs[end + 1 :]) for end in ends if theirs[:end] in names), None)


def _by_name(rows: TableRows, free: list[str], mapped: set[str]) -> dict[str, str]:
    """{our name: the table's} of columns that go by a name of ours or a standard one. An exact name wins."""
    found = {}
    for ours in ("object_id", *NUMBER_COLUMNS, *TEXT_COLUMNS):
        name = None if ours in mapped else _standard(rows, ours, free)
        if name is not None:
            found[ours] = name
            if name != ours:
                log.info("%s: column %r is taken as %s", rows.path.name, name, ours)
    for name in free:
        ours = name.lower() if _BAND.fullmatch(name) and name.lower() not in free else name
        if ours.startswith("mag_") and is_ours(ours) and ours not in mapped:
            found[ours] = name
    return found


def _standard(rows: TableRows, ours: str, free: list[str]) -> str | None:
    usual = _STANDARD.get(ours, ours).split()
    # An exact name, then that name in another case, then other standard names.
    same = [name for name in free if name.lower() == ours]
    others = [name for name in free if name.lower() in usual and name not in same]
    if not same and not others and ours == "z_spec" and not _is_band(rows.names):
        same = [name for name in free if name.lower() == "z"]
    candidates = [ours] if ours in same else list(dict.fromkeys(same or others))
    if len(candidates) > 1:
        raise rows.refusal(
            f"columns {listed(map(repr, candidates))} can each be {ours}; say which: --columns {ours}={candidates[0]}"
        )
    degrees = [name for name in others if "deg" in name.lower()]
    if ours in ("ra", "dec") and len(candidates) == len(degrees) == 1 and is_no_unit(rows.raw.units.get(candidates[0])):
        candidates = degrees  # the other may be in hours or sexagesimal
    rest = [name for name in (*same, *others) if name not in candidates]
    if rest:
        log.info(
            "%s: %s comes from column %r, not from %s; to change that, say --columns %s=%s",
            rows.path.name, ours, candidates[0], listed(map(repr, rest)), ours, rest[0],
        )  # fmt: skip
    return candidates[0] if candidates else None


def _is_band(names: Iterable[str]) -> bool:
    """Whether a column `z` is a magnitude or a coordinate, by what stands beside it."""
    return any(name.lower() in _BESIDE_Z for name in names)


def _likely(ours: str, names: Sequence[str], every: Sequence[str]) -> str | None:
    lowered = {name.lower(): name for name in reversed(names)}
    if ours == "z_spec" and _is_band(every):
        lowered.pop("z", None)
    return next((lowered[usual] for usual in _LIKELY[ours].split() if usual in lowered), None)
