"""Right ascensions and declinations of users' tables: decimal or sexagesimal, in any unit, checked, in degrees."""

import logging
import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from photoz.tables.names import Source
from photoz.tables.rows import Floats, TableRows, as_floats, from_numpy, is_text, spelt_as, to_numpy
from photoz.tables.units import HOURS_IN_DEGREES, degrees_in, is_no_unit, unit_in_name

log = logging.getLogger("photoz.catalog")

_LIMITS = {"ra": (0.0, 360.0), "dec": (-90.0, 90.0)}
_NO_POSITION = re.compile(r"-9+(\.9+)?|-1")
_FEWEST_TO_JUDGE = 20  # rows below which a range of values says nothing about their unit
# 10:42:31.2, +12 30 45, 10h42m31.2s, -00d30m, 12°30'45"
_SEXAGESIMAL = re.compile(
    r"""([+\-\u2212]?)\s*(\d{1,3})\s*([:hHdD°\s])\s*(\d{1,2}(?:\.\d*)?)\s*(?:[:mM'′\s]\s*(?:(\d{1,2}(?:\.\d*)?)\s*"""
    r"""(?:[sS"″]|'')?)?)?""",
    re.ASCII,
)


def positions(rows: TableRows, sources: Mapping[str, Source]) -> dict[str, pa.Array]:
    """`ra` and `dec` in degrees; BadInput for what can't be right."""
    found, unsaid, by_name = {}, [], []
    for ours in ("ra", "dec"):
        source = sources[ours]
        values = as_floats(rows.column(source.column))
        sexagesimal = values is None and _is_sexagesimal(rows, source.column)
        unit = None if sexagesimal or not is_no_unit(source.unit) else unit_in_name(source.column)
        if unit is not None:
            source = source._replace(unit=unit)
            if degrees_in(unit) != 1:
                log.info("%s: column %r is in %s, by its name", rows.path.name, source.column, unit)
                by_name.append(source)
        factor = None if is_no_unit(source.unit) else _factor(rows, ours, source)
        if sexagesimal:
            found[ours] = _from_sexagesimal(rows, ours, source.column, factor)
        else:
            expected = "a number (decimal degrees)" if factor in (None, 1) else "a number"
            values = rows.floats(source.column, expected) if values is None else values
            found[ours] = to_numpy(values) * (factor or 1.0)
            unsaid += [ours] if factor is None else []
        if ours == "ra":
            ra = found[ours]  # as stated
            found[ours] = ra if sexagesimal else _from_zero(rows, source.column, ra)
        _check_range(rows, ours, source, found[ours])
    if unsaid and by_name:
        other, unit = sources[unsaid[0]].column, str(by_name[0].unit)
        also = "" if degrees_in(unit) == HOURS_IN_DEGREES else f" or {unsaid[0]}={other}:{unit}"
        raise rows.refusal(
            f"column {by_name[0].column!r} is in {unit} by its name, and {other!r} states no unit; "
            f"say which: --columns {unsaid[0]}={other}:deg{also}"
        )
    if len(unsaid) == 2:
        _doubt(rows, [sources[ours].column for ours in unsaid], ra, found["dec"])
    if unsaid:
        log.info("%s: no unit stated for %s: taken as degrees", rows.path.name, " and ".join(unsaid))
    return {ours: from_numpy(values) for ours, values in found.items()}


def _from_zero(rows: TableRows, name: str, ra: Floats) -> Floats:
    """Right ascensions from -180 to 180 as from 0 to 360; unchanged if all below 0 are placeholders, such as -99."""
    below = ra[ra < 0]
    if not len(below) or np.nanmin(ra) < -180 or np.nanmax(ra) > 180 or spelt_as(below, _NO_POSITION, np.inf).all():
        return ra
    log.warning("%s: %d values of %r are below 0, to %g: 360 added", rows.path.name, len(below), name, below.min())
    return np.where(ra < 0, ra + 360, ra)


def _is_sexagesimal(rows: TableRows, name: str) -> bool:
    if not is_text(rows.column(name)):
        return False
    first = next(filter(None, rows.text(name).to_pylist()), "")
    return _SEXAGESIMAL.fullmatch(first) is not None


def _factor(rows: TableRows, ours: str, source: Source) -> float:
    """Degrees in the unit that the file or the user states."""
    unit = str(source.unit)
    factor = degrees_in(unit)
    if factor is None or (ours == "dec" and factor == HOURS_IN_DEGREES):
        said = "is no known angle" if factor is None else "no declination is in"
        known = "deg, rad, arcsec or hourangle" if ours == "ra" else "deg, rad or arcsec"
        raise rows.refusal(
            f"column {source.column!r} is in {unit[:60]!r}, which {said}; expected {known}. "
            f"{_suggested(rows, ours, source.column)}"
        )
    return factor


def _suggested(rows: TableRows, ours: str, theirs: str) -> str:
    """What the values can be by their range, and the flag for degrees; other units the user has to know."""
    values = as_floats(rows.column(theirs))
    hint = f"--columns {ours}={theirs}:deg"
    if values is None and _is_sexagesimal(rows, theirs):
        unit = "hms" if ours == "ra" else "dms"
        return f"For {'hours' if ours == 'ra' else 'degrees'}, minutes and seconds say --columns {ours}={theirs}:{unit}"
    if values is None or values.null_count == len(values):
        return f"Correct the unit, or, for degrees, say {hint}"
    low, high = float(np.nanmin(to_numpy(values))), float(np.nanmax(to_numpy(values)))
    if low < (-180 if ours == "ra" and high <= 180 else _LIMITS[ours][0]) or high > _LIMITS[ours][1]:
        return f"Its values, {low:g} to {high:g}, can't be degrees: correct the column or its unit"
    also = ""
    if max(-low, high) <= (2 * np.pi if ours == "ra" else np.pi / 2):
        also = ", hours or radians" if ours == "ra" else " or radians"
    elif ours == "ra" and high <= 24:
        also = " or hours"
    return f"Its values, {low:g} to {high:g}, can be degrees{also}; for degrees say {hint}"


def _from_sexagesimal(rows: TableRows, ours: str, theirs: str, factor: float | None) -> Floats:
    """Degrees. Hours for ra and degrees for dec, unless the unit or an h or d in the text says otherwise."""
    texts: list[str] = [text or "" for text in rows.text(theirs).to_pylist()]
    values = np.full(len(texts), np.nan)
    for index, text in enumerate(texts):
        if not text:
            continue
        where = f"{theirs} = {text[:60]!r} in row {rows.number(index)}"
        match = _SEXAGESIMAL.fullmatch(text)
        if not match:
            raise rows.refusal(f"{where}; expected sexagesimal notation, as in the rows before, such as 10:42:31.2")
        sign, whole, mark, minutes, seconds = match.groups()
        marked = HOURS_IN_DEGREES if mark in "hH" else 1.0 if mark in "dD°" else None
        if factor is not None and marked is not None and marked != factor:
            raise rows.refusal(f"{where} contradicts the column's unit; expected one of the two: correct the unit")
        one = marked or factor or (HOURS_IN_DEGREES if ours == "ra" else 1.0)
        if one not in (1.0, HOURS_IN_DEGREES) or (ours == "dec" and one != 1):
            raise rows.refusal(
                f"{where}; expected {'hours or degrees' if ours == 'ra' else 'degrees'}, minutes, seconds"
            )
        if float(minutes) >= 60 or float(seconds or 0) > 60 or (seconds and "." in minutes):
            raise rows.refusal(f"{where}; expected minutes and seconds below 60")
        if one == HOURS_IN_DEGREES and int(whole) >= 24:
            raise rows.refusal(
                f"{where}: {whole} is no hour of right ascension; expected 0 to 23: "
                f"if these are degrees, minutes and seconds, say --columns {ours}={theirs}:deg"
            )
        size = int(whole) + float(minutes) / 60 + float(seconds or 0) / 3600
        values[index] = (-size if sign in ("-", "\u2212") else size) * one
    return values


def _check_range(rows: TableRows, ours: str, source: Source, values: Floats) -> None:
    low, high = _LIMITS[ours]
    wrong = np.flatnonzero(~((values >= low) & (values <= high)))
    if not len(wrong):
        return
    value = values[wrong[0]]
    said = "is missing or not a number" if np.isnan(value) else f"= {value:g}"
    if not np.isnan(value) and source.unit is not None and not is_no_unit(source.unit):
        said += f" degrees, as column {source.column!r} is in {source.unit}"
    remedy = "correct or remove them"
    if np.isnan(values[wrong]).all():
        name = source.column if source.column.isidentifier() else f"`{source.column}`"
        stated = as_floats(rows.column(source.column))
        least = -180 if ours == "ra" and stated is not None and (to_numpy(stated) < 0).any() else low
        filled = "!= ''" if stated is None else f">= {least:g}"
        remedy += f', such as with --where "{name} {filled}"'
    raise rows.refusal(
        f"{ours} {said} in row {rows.number(wrong[0])} ({len(wrong)} such rows); "
        f"expected {low:g} to {high:g} degrees: {remedy}"
    )


def _doubt(rows: TableRows, names: list[str], ra: Floats, dec: Floats) -> None:
    """Refuse numbers without a unit that look like radians or hours of a large part of the sky; warn of a smaller."""
    if len(ra) < _FEWEST_TO_JUDGE:
        return
    small = np.abs(ra).max() <= 2 * np.pi and np.abs(dec).max() <= np.pi / 2 and np.ptp(ra) > 0.1 and np.ptp(dec) > 0.1
    radians = small and (ra.max() > np.pi or ra.min() < 0) and np.ptp(ra) > 3 and np.ptp(dec) > 0.5
    hours = ra.min() < 2 and 22 < ra.max() <= 24 and np.ptp(dec) > 30
    if radians or hours:
        raise rows.refusal(
            f"no unit stated, and {names[0]} from {ra.min():.4g} to {ra.max():.4g} with {names[1]} from "
            f"{dec.min():.4g} to {dec.max():.4g} looks like {'radians' if radians else 'hours'}; say which: "
            f"--columns ra={names[0]}:deg,dec={names[1]}:deg for degrees, "
            + (f"ra={names[0]}:rad,dec={names[1]}:rad for radians" if radians else f"ra={names[0]}:hourangle for hours")
        )
    if small or (np.abs(ra).max() <= 24 and np.ptp(dec) > 30):
        log.warning(
            "%s: %s from %.4g to %.4g and %s from %.4g to %.4g are taken as degrees and could be %s: check them",
            rows.path.name, names[0], ra.min(), ra.max(), names[1], dec.min(), dec.max(),
            "radians" if small else "hours",
        )  # fmt: skip
