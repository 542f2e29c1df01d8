"""Magnitudes of users' tables: fluxes converted on request, placeholders null, what can't be magnitudes refused."""

import logging
import math
import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from photoz.errors import BadInput
from photoz.tables.names import Source
from photoz.tables.rows import (
    Floats,
    TableRows,
    examples,
    from_numpy,
    holds_numbers,
    spelt_as,
    to_numpy,
)
from photoz.tables.units import is_flux, is_magnitude, is_no_unit, zero_point

log = logging.getLogger("photoz.catalog")

MAGNITUDE_LIMIT = 60.0  # no magnitude is larger
MAGNITUDES = (5.0, 35.0)  # from the brightest galaxies to beyond the deepest images
_MOST_OUTSIDE = 0.1  # of the distinct values: fluxes spread over decades, magnitudes do not
_FEWEST_OUTSIDE = 2
_FEWEST_REPEATED, _MOST_REPEATED = 3, 2  # rows that share a placeholder, and placeholders in one column
_PLACEHOLDER = re.compile(r"[+-]?99+(\.9+)?|-9(\.9+)?|[+-]?1(000)*|[+-]?1e\+[1-9]\d|[+-]?inf")
_BAND = re.compile(r"mag_(err_)?([a-z]{1,2}(\d{1,4}[a-z]?)?|[fn]uv)", re.IGNORECASE)
_INVERSE = re.compile(r"ivar|inv(erse)?_?var", re.IGNORECASE)
_PER_SQUARE = re.compile(r"\s*1(\.0*)?\s*/|.*(mag|mgy|magg(y|ie)|jy|jansky)s?\W*[-−]\s*2\b", re.IGNORECASE)
_LARGEST_ERROR = 1.0  # mag: a median above it is no error of a galaxy's magnitude
_SIGMA_IN_MAG = 2.5 / math.log(10)  # of a relative error of 1


def magnitudes(rows: TableRows, sources: Mapping[str, Source]) -> dict[str, pa.Array]:
    """`mag_*` and `mag_err_*` as AB magnitudes, null where not measured.

    What is ours by its prefix alone and holds no magnitudes, such as text or `mag_abs_r`, is left out with a line in
    the log; a column named after a band is not.
    BadInput for fluxes that nobody asked to convert, and for values that no magnitude has.
    """
    found = {}
    for ours, source in sources.items():
        if source.asked or _may_be_magnitudes(rows, source):
            read = _errors if ours.startswith("mag_err_") else _values
            try:
                found[ours] = from_numpy(read(rows, ours, sources))
            except BadInput as error:
                if source.asked or _BAND.fullmatch(source.column):
                    raise
                log.warning("%s: column %r is left out: %s", rows.path.name, source.column, error)
    return found


def reddening(rows: TableRows, source: Source) -> pa.Array:
    """E(B-V) in magnitudes, null where not known."""
    if not (is_no_unit(source.unit) or is_magnitude(str(source.unit))):
        raise rows.refusal(f"column {source.column!r} is in {str(source.unit)[:60]!r}; expected E(B-V) in magnitudes")
    return from_numpy(_blanked(rows, "ebv", to_numpy(rows.floats(source.column)), least=-0.5))


def _may_be_magnitudes(rows: TableRows, source: Source) -> bool:
    unit = source.unit or ""
    if not (is_no_unit(unit) or is_magnitude(unit) or is_flux(unit) or "mag" in unit.casefold()):
        why = f"is in {unit[:60]}"
    else:
        try:
            if holds_numbers(rows.column(source.column)):
                return True
            why = "holds no numbers"
        except BadInput as error:  # nobody asked for this column: that it can't be read must not cost the table
            why = f"can't be read ({error})"
    log.warning("%s: column %r %s: left out, as it is no magnitude", rows.path.name, source.column, why)
    return False


def _values(rows: TableRows, ours: str, sources: Mapping[str, Source]) -> Floats:
    source = sources[ours]
    values = to_numpy(rows.floats(source.column))
    if _is_flux(rows, ours, source):
        dark = values <= 0
        if dark.any():
            log.info("%s: %d fluxes of %s are 0 or less: now null", rows.path.name, np.count_nonzero(dark), ours)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(dark, np.nan, float(zero_point(str(source.unit)) or 0) - 2.5 * np.log10(values))
    return _blanked(rows, ours, _check_values(rows, ours, source, values))


def _errors(rows: TableRows, ours: str, sources: Mapping[str, Source]) -> Floats:
    """Errors in magnitudes; errors of fluxes are converted along with the fluxes that they belong to."""
    source, value_name = sources[ours], "mag_" + ours.removeprefix("mag_err_")
    stated = rows.raw.units.get(source.column, "")
    if _INVERSE.search(source.column) or any(map(_PER_SQUARE.match, (stated, source.unit or ""))):
        raise rows.refusal(
            f"column {source.column!r} holds inverse variances; expected standard errors for {ours}: "
            "make a column of 1/sqrt of them, empty where they are 0, and map that"
        )
    errors = to_numpy(rows.floats(source.column))
    flux = sources.get(value_name)
    if _is_flux(rows, ours, source):
        if flux is None or not flux.asked or zero_point(flux.unit or "") is None:
            raise rows.refusal(
                f"{ours} is mapped to errors of fluxes ({source.column!r}), but {value_name} to no fluxes; "
                f"expected both: --columns {value_name}=NAME:{source.unit},{ours}={source.column}:{source.unit}"
            )
        fluxes = to_numpy(rows.floats(flux.column))
        scale = 10 ** (0.4 * (float(zero_point(str(flux.unit)) or 0) - float(zero_point(str(source.unit)) or 0)))
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.where(fluxes > 0, _SIGMA_IN_MAG * scale * errors / fluxes, np.nan)
    elif flux is not None and flux.asked and flux.unit is not None and zero_point(flux.unit) is not None:
        log.info("%s: %s is taken as magnitudes, although %s is made from fluxes", rows.path.name, ours, value_name)
    errors = _blanked(rows, ours, errors, least=0.0)
    known = errors[~np.isnan(errors)]
    if len(known) and np.median(known) > _LARGEST_ERROR:
        log.warning(
            "%s: the median of %s is %.3g mag; expected less than %g: check that column %r holds standard errors",
            rows.path.name, ours, np.median(known), _LARGEST_ERROR, source.column,
        )  # fmt: skip
    return errors


def _is_flux(rows: TableRows, ours: str, source: Source) -> bool:
    """Whether fluxes are to be converted; BadInput for a unit that is neither a magnitude nor asked for."""
    unit = source.unit
    if unit is None or is_no_unit(unit) or is_magnitude(unit):
        return False
    convertible = zero_point(unit) is not None
    if convertible and source.unit_given:
        return True
    hint = "; expected magnitudes (AB): convert the column first"
    if convertible:
        hint = f", a flux; expected magnitudes (AB): convert with --columns {ours}={source.column}:{unit}"
    elif is_flux(unit):
        hint = (
            ", a flux that has no AB magnitude as it stands; expected magnitudes (AB), nmgy, maggy, Jy, mJy, uJy or nJy"
        )
    raise rows.refusal(f"column {source.column!r} is in {unit[:60]!r}{hint}")


def _check_values(rows: TableRows, ours: str, source: Source, values: Floats) -> Floats:
    """`values` with NaN for one or two numbers that stand for all that was not measured, such as 0.

    BadInput if the median, or a good part of the distinct values, is no galaxy's magnitude.
    """
    low, high = MAGNITUDES
    known = values[~np.isnan(values) & ~spelt_as(values, _PLACEHOLDER, MAGNITUDE_LIMIT)]
    distinct, counts = np.unique(known, return_counts=True)
    outside = (distinct < low) | (distinct > high)
    repeated = distinct[outside & (counts >= _FEWEST_REPEATED)]
    if 0 < len(repeated) <= _MOST_REPEATED:
        _say(rows, ours, values[np.isin(values, repeated)], usual=False)
        return _check_values(rows, ours, source, np.where(np.isin(values, repeated), np.nan, values))
    if not len(known):
        return values
    median, count = float(np.median(known)), np.count_nonzero(outside)
    if not low <= median <= high or count > max(_FEWEST_OUTSIDE, _MOST_OUTSIDE * len(distinct)):
        hint = f"if these are fluxes, convert them: --columns {ours}={source.column}:nmgy (or maggy, Jy, mJy, uJy, nJy)"
        if np.median(known) <= 0 or "err" in source.column.lower():
            hint = f"map a column of magnitudes with --columns {ours}=NAME"
        if source.unit_given and zero_point(source.unit or "") is not None:
            hint = f"check the unit of the flux, {source.unit}"
        raise rows.refusal(
            f"{ours} (column {source.column!r}) has the median {median:.4g} and values from {known.min():.4g} to "
            f"{known.max():.4g}; expected AB magnitudes, {low:g} to {high:g}: {hint}, or leave the column out: "
            f"--columns {ours}=-"
        )
    kept = distinct[outside & (np.abs(distinct) < MAGNITUDE_LIMIT)]
    if len(kept):
        log.warning(
            "%s: %d values of %s are unlikely (%s) and kept; expected %g to %g: check them",
            rows.path.name, len(kept), ours, examples(kept), low, high,
        )  # fmt: skip
    return values


def _blanked(rows: TableRows, ours: str, values: Floats, least: float = -MAGNITUDE_LIMIT) -> Floats:
    """NaN for what stands for "not measured", such as -9999, and for what is impossible; said, with examples."""
    impossible = (np.abs(values) >= MAGNITUDE_LIMIT) | (values < least)
    usual = spelt_as(values, _PLACEHOLDER, MAGNITUDE_LIMIT) & (impossible | (values < 0))
    for which, is_usual in ((usual, True), (impossible & ~usual, False)):
        if which.any():
            _say(rows, ours, values[which], is_usual)
    return np.where(usual | impossible, np.nan, values)


def _say(rows: TableRows, ours: str, blanked: Floats, usual: bool) -> None:
    said = (rows.path.name, len(blanked), ours, examples(blanked))
    if usual:
        log.info("%s: %d values of %s mean `not measured` (%s): now null", *said)
    else:
        log.warning("%s: %d values of %s can't be right (%s): now null; no usual placeholders, so check them", *said)
