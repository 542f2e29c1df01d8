"""Making a catalogue once it is known that there is none yet: fetch or take rows, clean, limit, split, commit."""

import itertools
import logging
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from photoz.artifacts import Draft, Outcome
from photoz.catalog.cleaning import Attrition, drop_duplicates, keep_inside, with_position_ids
from photoz.catalog.pages import PAGE_ROWS, PagePlan, fetch_pages, join_pages, shared_plan
from photoz.catalog.sampling import shuffled_order
from photoz.catalog.schema import conform, encode
from photoz.catalog.settings import CatalogSettings
from photoz.catalog.shares import SPLITS, SplitFractions
from photoz.catalog.splits import SplitPlan, add_splits
from photoz.regions import Region
from photoz.surveys.survey import HASH_RANGE, CatalogQuery, Column, Survey
from photoz.tables.table import UserTable

log = logging.getLogger("photoz.catalog")


def make_from_table(draft: Draft, table: UserTable, settings: CatalogSettings, region: Region | None) -> Outcome:
    """The catalogue of a user's table."""
    attrition = Attrition()
    for cut, count in table.cuts:
        attrition.add(cut, count)
    rows = _clean(_with_ids(table.rows, attrition), region, settings, attrition)
    rows = _limited(rows, shuffled_order(rows["object_id"]), settings.limit, attrition)
    return _commit(draft, rows, settings, attrition, {"table_folder": str(table.folder)})


def make_from_survey(
    draft: Draft, survey: Survey, selection: str, settings: CatalogSettings, region: Region | None, sharers: int
) -> Outcome:
    """The catalogue of a survey's sample, or this slice's share of its pages."""
    with survey.open(settings.survey_url) as opened:
        query = opened.query(selection, settings.photometric, region.boxes() if region else [], sharers)
        plan = shared_plan(draft, query, settings.limit)
        fetch_pages(draft, query, plan)
        if not draft.finish_slice():
            return draft.partial()
        rows, attrition = _sample(draft, query, plan, region, settings)
    return _commit(draft, rows, settings, attrition, {}, survey.columns, survey.simulated)


def _with_ids(rows: pa.Table, attrition: Attrition) -> pa.Table:
    """Rows with object ids: the table's own, or made from the positions."""
    if "object_id" in rows.column_names:
        return rows
    named = with_position_ids(rows)
    if named.num_rows < rows.num_rows:
        attrition.add("one row for each position", named.num_rows)
    return named


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
