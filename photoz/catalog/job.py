"""The catalog job: from a survey or a user's table to one Parquet file of galaxies with splits."""

import hashlib
import itertools
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from photoz.artifacts import Destination, Draft, Outcome
from photoz.catalog.cleaning import Attrition, drop_duplicates, keep_inside, with_position_ids
from photoz.catalog.pages import PAGE_ROWS, PagePlan, fetch_pages, join_pages, shared_plan
from photoz.catalog.sampling import shuffled_order
from photoz.catalog.schema import conform, encode
from photoz.catalog.settings import CatalogSettings
from photoz.catalog.shares import SPLITS, SplitFractions
from photoz.catalog.splits import SplitPlan, add_splits
from photoz.regions import Region, parse_region
from photoz.surveys import TABLE, survey_named
from photoz.surveys.survey import HASH_RANGE, CatalogQuery, Column
from photoz.tables.columns import parse_columns
from photoz.tables.table import UserTable, read_table

log = logging.getLogger("photoz.catalog")

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
        attrition = Attrition()
        for cut, count in table.cuts:
            attrition.add(cut, count)
        rows = _clean(_with_ids(table.rows, attrition), region, settings, attrition)
        rows = _limited(rows, shuffled_order(rows["object_id"]), settings.limit, attrition)
        return _commit(draft, rows, settings, attrition, {"table_folder": str(table.folder)})


def _images_digest(table: UserTable) -> str | None:
    """One digest for all image files, so that a changed image makes another catalogue."""
    if "image_sha256" not in table.rows.column_names:
        return None
    digests = (digest or "" for digest in table.rows["image_sha256"].to_pylist())
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _with_ids(rows: pa.Table, attrition: Attrition) -> pa.Table:
    """Rows with object ids: the table's own, or made from the positions."""
    if "object_id" in rows.column_names:
        return rows
    named = with_position_ids(rows)
    if named.num_rows < rows.num_rows:
        attrition.add("one row for each position", named.num_rows)
    return named


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
        with survey.open(settings.survey_url) as opened:
            boxes = region.boxes() if region else []
            query = opened.query(selection, settings.photometric, boxes, sharers=dest.task.count)
            plan = shared_plan(draft, query, settings.limit)
            fetch_pages(draft, query, plan)
            if not draft.finish_slice():
                return draft.partial()
            rows, attrition = _sample(draft, query, plan, region, settings)
        return _commit(draft, rows, settings, attrition, {}, survey.columns, survey.simulated)


def _sample(
    draft: Draft, query: CatalogQuery, plan: PagePlan, region: Region | None, settings: CatalogSettings
) -> tuple[pa.Table, Attrition]:
    """The clean sample. Where cuts on our side leave too few for the limit, further slices of hash are fetched."""
    fetched, top = join_pages(draft, plan), plan.edges[-1]
    while True:
        attrition = Attrition(list(plan.attrition))
        if top < HASH_RANGE:
            attrition.add("random sample to choose from", fetched.num_rows)
        rows = _clean(query.to_catalog(fetched), region, settings, attrition)
        if settings.limit is None or rows.num_rows >= settings.limit or top == HASH_RANGE:
            break
        fetched, top = _with_more(fetched, top, query, plan)
    return _limited(rows, query.order(rows), settings.limit, attrition), attrition


def _with_more(fetched: pa.Table, top: int, query: CatalogQuery, plan: PagePlan) -> tuple[pa.Table, int]:
    """Twice as much of the range of hashes as before."""
    new_top = min(HASH_RANGE, 2 * top)
    pages = max(1, math.ceil(plan.selected * (new_top - top) / HASH_RANGE / PAGE_ROWS))
    edges = [top + (new_top - top) * number // pages for number in range(pages + 1)]
    more = [query.page(low, high) for low, high in itertools.pairwise(edges)]
    return pa.concat_tables([fetched, *more]), new_top


# For both


def _clean(rows: pa.Table, region: Region | None, settings: CatalogSettings, attrition: Attrition) -> pa.Table:
    if region is not None:
        rows = keep_inside(rows, region)
        attrition.add("inside the region", rows.num_rows)
    if settings.duplicates_arcsec and not settings.photometric:
        rows = drop_duplicates(rows, settings.duplicates_arcsec)
        attrition.add(f"one spectrum within {settings.duplicates_arcsec:g} arcsec", rows.num_rows)
    return rows


def _limited(rows: pa.Table, order: np.typing.NDArray[np.int64], limit: int | None, attrition: Attrition) -> pa.Table:
    """The first `limit` rows in that order."""
    if limit is None or limit >= rows.num_rows:
        return rows
    attrition.add(f"limit {limit}", limit)
    return rows.take(pa.array(order[:limit]))


def _commit(
    draft: Draft,
    rows: pa.Table,
    settings: CatalogSettings,
    attrition: Attrition,
    facts: dict[str, Any],
    survey_columns: Mapping[str, Column] = MappingProxyType({}),
    simulated: bool = False,
) -> Outcome:
    rows = rows.take(pa.array(shuffled_order(rows["object_id"])))
    rows, plan = add_splits(rows, SplitFractions.parse(settings.splits))
    split_facts = {"split_by": plan.by, "split_order": plan.order, "split_nside": plan.nside}
    catalog = conform(rows, {"survey": settings.survey, "simulated": simulated, **split_facts}, survey_columns)
    counts = {split: pc.sum(pc.equal(catalog["split"], split)).as_py() or 0 for split in SPLITS}
    attrition.show()
    _say_splits(plan, counts, catalog.num_rows)
    draft.put("catalog.parquet", encode(catalog), rows=catalog.num_rows)
    z_range = pc.min_max(catalog["z_spec"]).as_py()
    summary = {
        "survey": settings.survey,
        "simulated": simulated,
        "rows": catalog.num_rows,
        "splits": counts,
        **split_facts,
        "split_assigned": plan.assigned,
        "z_range": None if z_range["min"] is None else [z_range["min"], z_range["max"]],
        "attrition": attrition.as_list(),
        **facts,
    }
    return draft.commit(summary)


def _say_splits(plan: SplitPlan, counts: dict[str, int], rows: int) -> None:
    in_splits = sum(counts.values())
    if plan.by == "none":
        log.info("no galaxy has z_spec: a catalogue for inference only, without splits")
        return
    how = {"column": "as the table says", "block": "by the table's blocks"}.get(plan.by)
    if how is None:
        how = f"by HEALPix cell, nside {plan.nside}"
        if plan.order and plan.order > 6:
            how += " (finer than 64: the field is too small for whole cells of it)"
    log.info("splits %s: %s", how, ", ".join(f"{split} {count:,}" for split, count in counts.items()))
    if in_splits < rows:
        log.info("%s of %s galaxies have no z_spec and are in no split", f"{rows - in_splits:,}", f"{rows:,}")
    empty = [split for split, count in counts.items() if count == 0]
    if empty:
        log.warning("%d galaxies can't fill all splits: %s is empty", in_splits, " and ".join(empty))
