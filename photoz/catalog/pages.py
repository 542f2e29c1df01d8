"""A survey's rows by pages of the hash of the id: planned once, shared among slices, joined by the last one."""

import json
import logging
import math
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from photoz import progress, runtime
from photoz.artifacts import Draft
from photoz.artifacts.parquet import parquet_bytes
from photoz.catalog.cleaning import Attrition
from photoz.errors import PhotozError
from photoz.surveys.survey import HASH_RANGE, CatalogQuery

log = logging.getLogger("photoz.catalog")

PAGE_ROWS = 50_000  # a tenth of the row limit of SQL services such as SkyServer
_PLAN = "plan.json"


@dataclass(frozen=True)
class PagePlan:
    """What the cuts leave, and the slices of hash [0, edges[1]), [edges[1], edges[2]) … to fetch."""

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


def shared_plan(draft: Draft, query: CatalogQuery, limit: int | None) -> PagePlan:
    """The plan, made by the first slice that needs it. Raises BadInput if a cut leaves nothing."""
    stored = draft.load_state(_PLAN)
    if stored is not None:
        return PagePlan.decode(stored)
    attrition = Attrition()
    for cuts, name in enumerate(query.steps):
        attrition.add(name, query.count(cuts))
    plan = PagePlan(attrition.steps, _edges(attrition.steps[-1][1], limit))
    return PagePlan.decode(draft.agree(_PLAN, plan.encode()))


def _edges(selected: int, limit: int | None) -> list[int]:
    """Slices of hash that hold a little more than `limit` rows, each one page's worth."""
    wanted = selected if limit is None else limit + 4 * math.isqrt(limit) + 20
    share = min(1.0, wanted / selected)
    pages = max(1, math.ceil(share * selected / PAGE_ROWS))
    top = HASH_RANGE if share == 1.0 else math.ceil(share * HASH_RANGE)
    return [top * number // pages for number in range(pages + 1)]


def fetch_pages(draft: Draft, query: CatalogQuery, plan: PagePlan) -> None:
    """Fetch this slice's pages, each kept as an intermediate file."""
    pages = plan.pages()
    todo = draft.todo(list(pages))
    with progress.stage("catalogue", total=len(todo), unit="pages") as bar:
        for name in todo:
            runtime.check_stop()
            rows = query.page(*pages[name])
            page = parquet_bytes(rows, compression="zstd")
            draft.finish_piece(name, facts={"rows": rows.num_rows}, staged=[draft.put_stage(f"{name}.parquet", page)])
            bar.advance()


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
