"""A survey's rows by pages of the mixed hash of the id: planned once, shared among slices, joined by the last one."""

import json
import logging
import math
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from photoz import progress, runtime
from photoz.artifacts import Draft
from photoz.catalog.cleaning import Attrition
from photoz.catalog.sampling import HASH_RANGE
from photoz.catalog.selections import SFD_R_BAND, SkyQuery
from photoz.errors import PhotozError
from photoz.surveys.sdss.skyserver import SkyServer

log = logging.getLogger("photoz.catalog")

PAGE_ROWS = 50_000  # a tenth of SkyServer's row limit
_PLAN = "plan.json"


@dataclass(frozen=True)
class PagePlan:
    """What the cuts leave, and the slices of hash [0, edges[1]), [edges[1], edges[2]) … that are asked for."""

    attrition: list[tuple[str, int]]
    edges: list[int]

    @property
    def selected(self) -> int:
        """Rows that the survey has in all."""
        return self.attrition[-1][1]

    @property
    def complete(self) -> bool:
        """Whether the pages hold every selected row."""
        return self.edges[-1] == HASH_RANGE

    def encode(self) -> bytes:
        """The plan as the slices share it."""
        return json.dumps({"attrition": self.attrition, "edges": self.edges}).encode()

    @classmethod
    def decode(cls, data: bytes) -> "PagePlan":
        """Read it back."""
        document = json.loads(data)
        return cls([(cut, rows) for cut, rows in document["attrition"]], document["edges"])

    def pages(self) -> dict[str, tuple[int, int]]:
        """{name: (low, high)} of each page."""
        count = len(self.edges) - 1
        return {
            f"page-{number:05d}-of-{count:05d}": (self.edges[number], self.edges[number + 1]) for number in range(count)
        }


def shared_plan(draft: Draft, server: SkyServer, query: SkyQuery, limit: int | None) -> PagePlan:
    """The plan, made by the first slice that needs it. Raises BadInput if a cut leaves nothing."""
    stored = draft.load_state(_PLAN)
    if stored is not None:
        return PagePlan.decode(stored)
    attrition = Attrition()
    for cuts, name in enumerate([query.first_step, *(cut.name for cut in query.cuts)]):
        attrition.add(name, server.count(query.count_sql(cuts)))
    plan = PagePlan(attrition.steps, _edges(attrition.steps[-1][1], limit))
    return PagePlan.decode(draft.agree(_PLAN, plan.encode()))


def _edges(selected: int, limit: int | None) -> list[int]:
    """Slices of hash that hold a little more than `limit` rows, each one page's worth."""
    wanted = selected if limit is None else limit + 4 * math.isqrt(limit) + 20
    share = min(1.0, wanted / selected)
    pages = max(1, math.ceil(share * selected / PAGE_ROWS))
    top = HASH_RANGE if share == 1.0 else math.ceil(share * HASH_RANGE)
    return [top * number // pages for number in range(pages + 1)]


def fetch_pages(draft: Draft, server: SkyServer, query: SkyQuery, plan: PagePlan) -> None:
    """Fetch this slice's pages, each kept as an intermediate file."""
    pages = plan.pages()
    todo = draft.todo(list(pages))
    with progress.stage("catalogue", total=len(todo), unit="pages") as bar:
        for name in todo:
            runtime.check_stop()
            rows = fetch_page(server, query, *pages[name])
            file = draft.scratch / f"{name}.parquet"
            pq.write_table(rows, file, compression="zstd")
            draft.finish_piece(name, facts={"rows": rows.num_rows}, staged=[draft.put_stage(file.name, file)])
            bar.advance()


def fetch_page(server: SkyServer, query: SkyQuery, low: int, high: int) -> pa.Table:
    """The selected rows with a hash from `low` up to `high`; as many as COUNT(*) says, or TryAgain."""
    expected = server.count(query.page_count_sql(low, high))
    return server.rows(query.page_sql(low, high), query.schema, expected)


def join_pages(draft: Draft, plan: PagePlan) -> pa.Table:
    """The rows of all pages of all slices. Raises PhotozError if they are not as many as the survey counted."""
    parts = [pq.read_table(pa.BufferReader(data)) for data in draft.stages(draft.receipts())]
    rows = pa.concat_tables(parts)
    if plan.complete and rows.num_rows != plan.selected:
        raise PhotozError(
            f"the pages hold {rows.num_rows} rows, the survey counted {plan.selected}: "
            "it changed meanwhile; run the command again with --force"
        )
    return rows


def to_catalog_columns(rows: pa.Table, survey: str) -> pa.Table:
    """A reply's rows with the catalogue's names: object ids, reddening, and null where Photoz has no estimate."""
    ids = pc.binary_join_element_wise(survey, rows["objid"].cast(pa.string()), "/")
    estimate = rows["z_phot_survey"]
    known = pc.and_(pc.is_finite(estimate), pc.greater(estimate, -1.0))  # -9999 where the survey's method failed
    estimate = pc.if_else(known, estimate, pa.scalar(None, pa.float64()))
    ebv = pc.divide(rows["extinction_r"], SFD_R_BAND)
    number = rows.column_names.index("z_phot_survey")
    return (
        rows.set_column(number, "z_phot_survey", estimate)
        .append_column("ebv", ebv)
        .append_column("object_id", ids)
        .drop_columns(["extinction_r"])
    )
