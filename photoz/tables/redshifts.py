"""Spectroscopic redshifts of users' tables: placeholders become null, repeated values get a warning."""

import logging
import re

import numpy as np
from scipy.special import pdtrc

from photoz.tables.rows import Floats, TableRows, examples, spelt_as

log = logging.getLogger("photoz.catalog")

Z_SPEC_RANGE = (-0.01, 20.0)  # from the largest blueshifts of galaxies to beyond any measured redshift
HIGHEST_MEDIAN = 7.0  # no survey's median is that high; magnitudes' is
_PLACEHOLDER = re.compile(r"-9+(\.9+)?|99+(\.9+)?|-1(000)?|[+-]?1e\+[2-9]\d")
_ONE_NINE = re.compile(r"9\.9+")  # in range, so only where it is repeated
_NO_ERROR = re.compile(r"-?99+(\.9+)?|-9(\.9+)?")
_NEIGHBOURS = 10


def clean_redshifts(rows: TableRows, name: str, values: Floats) -> Floats:
    """`values` with NaN for placeholders such as -9.999 or 99, which are counted and said."""
    unknown = spelt_as(values, _PLACEHOLDER, 9)
    nines = spelt_as(values, _ONE_NINE, 9)
    if np.count_nonzero(nines) > 1:
        unknown |= nines
    # What no galaxy has and several rows share stands for something else, if it is one value or two.
    distinct, counts = np.unique(values[(values < Z_SPEC_RANGE[0]) | (values > Z_SPEC_RANGE[1])], return_counts=True)
    shared = distinct[counts >= 3]
    if len(shared) <= 2:
        unknown |= np.isin(values, shared)
    if unknown.any():
        log.warning(
            "%s: %d values of %s mean `not known` (%s): now null",
            rows.path.name, np.count_nonzero(unknown), name, examples(values[unknown]),
        )  # fmt: skip
    return np.where(unknown, np.nan, values)


def check_redshifts(rows: TableRows, z_spec: Floats) -> None:
    """BadInput for a redshift that no galaxy has."""
    low, high = Z_SPEC_RANGE
    wrong = np.flatnonzero((z_spec < low) | (z_spec > high))
    if len(wrong):
        raise rows.refusal(
            f"z_spec = {z_spec[wrong[0]]:g} in row {rows.number(wrong[0])} ({len(wrong)} such rows); "
            f"expected {low:g} to {high:g}, or an empty cell where there is no redshift"
        )


def check_median(rows: TableRows, z_spec: Floats, theirs: str) -> None:
    """BadInput if the median is one of magnitudes."""
    known = z_spec[~np.isnan(z_spec)]
    if len(known) and np.median(known) > HIGHEST_MEDIAN:
        raise rows.refusal(
            f"the median of z_spec (column {theirs!r}) is {np.median(known):.4g}, as of magnitudes; expected at most "
            f"{HIGHEST_MEDIAN:g}: map the column of redshifts with --columns z_spec=NAME, leave them out with "
            "--columns z_spec=-, or, if these are redshifts, add --allow-high-z"
        )


def check_errors(rows: TableRows, errors: Floats, z_spec: Floats | None) -> Floats:
    """Standard errors, NaN where placeholders stand or where there is no redshift; BadInput for other negative ones."""
    if z_spec is not None:
        errors = np.where(np.isnan(z_spec), np.nan, errors)
    errors = np.where(spelt_as(errors, _NO_ERROR, 9), np.nan, errors)
    wrong = np.flatnonzero((errors < 0) | np.isinf(errors))
    if len(wrong):
        raise rows.refusal(
            f"z_spec_err = {errors[wrong[0]]:g} in row {rows.number(wrong[0])} ({len(wrong)} such rows); "
            "expected 0 or more, or an empty cell: negative errors usually mark failed fits, so remove those rows"
        )
    return errors


def repeated_values(values: Floats) -> dict[float, int]:
    """{value: rows} of those that stand far more often than their neighbours, as 0 does for unknown redshifts.

    Redshifts with few decimals repeat by chance: a value must stand out from those beside it.
    """
    distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    if not len(distinct):
        return {}
    place = np.arange(len(distinct))
    first, last = np.maximum(place - _NEIGHBOURS, 0), np.minimum(place + _NEIGHBOURS + 1, len(distinct))
    before = np.concatenate([[0], np.cumsum(counts)])
    usual = (before[last] - before[first] - counts) / np.maximum(last - first - 1, 1)
    # By chance alone, one value of a thousand such columns would be found.
    odd = (counts >= 3) & (pdtrc(counts - 1, usual) * len(distinct) < 1e-3)
    odd |= (counts >= 3) & ((distinct == 0) | (np.count_nonzero(counts > 1) == 1))
    return dict(zip(distinct[odd].tolist(), counts[odd].tolist(), strict=True))


def say_repeated(rows: TableRows, found: dict[float, int], dropped: bool) -> None:
    """Warn about repeated values, or say that their rows are dropped."""
    most = sorted(found, key=lambda value: -found[value])[:4]
    said = ", ".join(f"z_spec = {value:.7g} in {found[value]} rows" for value in most)
    said += " …" if len(found) > 4 else ""
    if found and dropped:
        log.info("%s: %s: dropped, as --drop-repeated-z says", rows.path.name, said)
    elif found:
        log.warning(
            "%s: %s: exactly repeated values often mean that no redshift is known; --drop-repeated-z drops these rows",
            rows.path.name,
            said,
        )
