"""The catalog job: from a survey or a user's table to one Parquet file of galaxies with splits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photoz.artifacts import Destination, Draft, Outcome
from photoz.catalog.settings import CatalogSettings
from photoz.regions import Region, parse_region
from photoz.surveys import TABLE, survey_named
from photoz.tables.columns import parse_columns

if TYPE_CHECKING:
    from photoz.tables.table import UserTable

RECIPE = 1
"""Raised whenever the same settings come to give other bytes."""

TABLE_RECIPE = 2
"""The same for users' tables. 2: standard names are found without a mapping, and a mapped column is kept once."""


def build_catalog(settings: CatalogSettings, dest: Destination) -> Outcome:
    """Build a catalogue and commit it, or do this slice's share of its pages.

    Raises BadInput for settings or tables that can't work, TryAgain when the survey does not answer.
    """
    region = _region(settings)
    if settings.survey == TABLE:
        return _from_table(settings, region, dest)
    return _from_survey(settings, region, dest)


def _region(settings: CatalogSettings) -> Region | None:
    if settings.moc is not None:
        from photoz.catalog.moc import read_moc  # mocpy takes a second to import

        return read_moc(Path(settings.moc))
    return parse_region(settings.region) if settings.region is not None else None


def _deciding(settings: CatalogSettings, region: Region | None) -> dict[str, Any]:
    """The settings that decide the bytes, for both kinds of source; files by their content, not by their name."""
    moc = hashlib.sha256(Path(settings.moc).read_bytes()).hexdigest() if settings.moc else None
    return {
        "region": None if region is None or moc else f"{region}",
        "moc_sha256": moc,
        "limit": settings.limit,
        "splits": settings.splits,
        "duplicates_arcsec": settings.duplicates_arcsec,
    }


# From a user's table


def _from_table(settings: CatalogSettings, region: Region | None, dest: Destination) -> Outcome:
    from photoz.tables.table import read_table

    table = read_table(
        Path(str(settings.table)),
        parse_columns(settings.columns),
        where=settings.where,
        images_from=settings.images_from,
        drop_repeated_z=settings.drop_repeated_z,
        allow_high_z=settings.allow_high_z,
    )
    # Settings younger than the first catalogues count only where they are used.
    used = {
        "where": settings.where,
        "drop_repeated_z": settings.drop_repeated_z or None,
        "image_names_sha256": table.names_sha256,
    }
    deciding = _deciding(settings, region) | {
        "survey": {"name": TABLE},
        "table_sha256": table.sha256,
        "images_sha256": _images_digest(table),
        "columns": parse_columns(settings.columns),
        **{name: value for name, value in used.items() if value is not None},
    }
    with Draft.begin(dest, kind="catalog", recipe=TABLE_RECIPE, settings=deciding) as draft:
        if draft.published:
            return draft.published
        if not draft.finish_slice():
            return draft.partial()
        from photoz.catalog.making import make_from_table  # astropy and scipy take seconds to import

        return make_from_table(draft, table, settings, region)


def _images_digest(table: UserTable) -> str | None:
    """One digest for all image files, so that a changed image makes another catalogue."""
    if "image_sha256" not in table.rows.column_names:
        return None
    digests = (digest or "" for digest in table.rows["image_sha256"].to_pylist())
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


# From a survey


def _from_survey(settings: CatalogSettings, region: Region | None, dest: Destination) -> Outcome:
    survey = survey_named(settings.survey)
    selection = settings.selection or next(iter(survey.selections))
    deciding = _deciding(settings, region) | {
        "survey": survey.identity(settings.survey_url),
        "selection": selection,
        "photometric": settings.photometric,
    }
    with Draft.begin(dest, kind="catalog", recipe=RECIPE, settings=deciding) as draft:
        if draft.published:
            return draft.published
        from photoz.catalog.making import make_from_survey

        return make_from_survey(draft, survey, selection, settings, region, dest.task.count)
