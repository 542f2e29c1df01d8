"""Catalogue queries to SkyServer: a selection's SQL, its rows by slices of a hash of the id, and their meaning."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from photoz.regions import Box
from photoz.surveys.sdss.bands import BANDS, NAMES
from photoz.surveys.sdss.hashing import mixed_hash, mixed_hash_sql
from photoz.surveys.sdss.selections import SELECTIONS, Cut
from photoz.surveys.sdss.server import Server
from photoz.surveys.sdss.skyserver import SkyServer

R_EXTINCTION = BANDS[NAMES.index("r")].extinction  # A_r / E(B-V)
MATCH_MARGIN_DEG = 0.005  # a spectrum lies within 2 arcsec of the source whose position counts
ROUNDING_DEG = 2e-4  # what the cover may lose to the four decimals in its SQL

_PHOTOMETRIC_COLUMNS = {
    "objid": ("p.objID", pa.uint64()),
    "ra": ("p.ra", pa.float64()),
    "dec": ("p.dec", pa.float64()),
    **{f"mag_{band}": (f"p.dered_{band}", pa.float64()) for band in NAMES},
    **{f"mag_err_{band}": (f"p.err_{band}", pa.float64()) for band in NAMES},
    "extinction_r": ("p.extinction_r", pa.float64()),
    "run": ("p.run", pa.int32()),
    "camcol": ("p.camcol", pa.int32()),
    "field": ("p.field", pa.int32()),
    "z_phot_survey": ("x.z", pa.float64()),
}
_SPECTROSCOPIC_COLUMNS = {
    "specobjid": ("s.specObjID", pa.uint64()),
    "z_spec": ("s.z", pa.float64()),
    "z_spec_err": ("s.zErr", pa.float64()),
}


@dataclass(frozen=True)
class SkyQuery:
    """One selection on one part of the sky, as SQL. `cover` is a condition on positions; None for the whole survey."""

    first_step: str
    source: str
    cuts: tuple[Cut, ...]
    columns: dict[str, tuple[str, pa.DataType]]
    cover: str | None

    @property
    def schema(self) -> pa.Schema:
        """Columns of the replies."""
        return pa.schema([(name, kind) for name, (_, kind) in self.columns.items()])

    def count_sql(self, cuts: int) -> str:
        """How many rows the first `cuts` cuts leave."""
        return f"SELECT COUNT(*) AS n FROM {self.source}{self._where(self.cuts[:cuts])}"

    def page_count_sql(self, low: int, high: int) -> str:
        """How many selected rows have a mixed hash from `low` up to, not including, `high`."""
        return f"SELECT COUNT(*) AS n FROM {self.source}{self._where(self.cuts, low, high)}"

    def page_sql(self, low: int, high: int) -> str:
        """The selected rows with a mixed hash from `low` up to, not including, `high`."""
        columns = ", ".join(f"{expression} AS {name}" for name, (expression, _) in self.columns.items())
        source = f"{self.source} LEFT JOIN Photoz AS x ON x.objID = p.objID"
        return f"SELECT {columns} FROM {source}{self._where(self.cuts, low, high)}"

    def _where(self, cuts: tuple[Cut, ...], low: int | None = None, high: int | None = None) -> str:
        conditions = [self.cover] if self.cover else []
        conditions += [f"({cut.sql})" for cut in cuts]
        if low is not None and high is not None:
            conditions.append(f"{mixed_hash_sql('p.objID')} BETWEEN {low} AND {high - 1}")
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def sky_query(selection: str, photometric: bool, boxes: Sequence[Box]) -> SkyQuery:
    """The query for a selection in any of the boxes: galaxies with a spectrum, or by their photometry alone."""
    chosen = SELECTIONS[selection]
    if photometric:
        cover = _cover(boxes, "p", ROUNDING_DEG)
        return SkyQuery(
            first_step="sources" + (" around the region" if cover else ""),
            source="PhotoObj AS p",
            cuts=(Cut("primary source", "p.mode = 1"), *chosen.photometric),
            columns=_PHOTOMETRIC_COLUMNS,
            cover=cover,
        )
    cover = _cover(boxes, "s", MATCH_MARGIN_DEG)
    return SkyQuery(
        first_step="primary spectra" + (" around the region" if cover else ""),
        source="SpecObj AS s LEFT JOIN PhotoObj AS p ON p.objID = s.bestObjID",
        cuts=chosen.spectroscopic,
        columns=_PHOTOMETRIC_COLUMNS | _SPECTROSCOPIC_COLUMNS,
        cover=cover,
    )


def _cover(boxes: Sequence[Box], table: str, margin_deg: float) -> str | None:
    """A T-SQL condition on the positions of `table`."""
    conditions = " OR ".join(box_sql(box.padded(margin_deg), table) for box in boxes)
    return f"({conditions})" if conditions else None


def box_sql(box: Box, table: str) -> str:
    """A box as a T-SQL condition on `table`.ra and .dec."""
    if box.ra_min <= box.ra_max:
        in_ra = f"{table}.ra BETWEEN {box.ra_min:.4f} AND {box.ra_max:.4f}"
    else:
        in_ra = f"({table}.ra >= {box.ra_min:.4f} OR {table}.ra <= {box.ra_max:.4f})"
    return f"{in_ra} AND {table}.dec BETWEEN {box.dec_min:.4f} AND {box.dec_max:.4f}"


@dataclass
class SdssQuery:
    """A SkyQuery that one server answers; see CatalogQuery."""

    survey: str
    sql: SkyQuery
    server: Server
    sharers: int = 1

    @cached_property
    def _client(self) -> SkyServer:
        return SkyServer(self.server, self.sharers)

    @property
    def steps(self) -> Sequence[str]:
        """See CatalogQuery."""
        return [self.sql.first_step, *(cut.name for cut in self.sql.cuts)]

    def count(self, cuts: int) -> int:
        """See CatalogQuery."""
        return self._client.count(self.sql.count_sql(cuts))

    def page(self, low: int, high: int) -> pa.Table:
        """See CatalogQuery. As many rows as COUNT(*) says."""
        expected = self._client.count(self.sql.page_count_sql(low, high))
        return self._client.rows(self.sql.page_sql(low, high), self.sql.schema, expected)

    def to_catalog(self, rows: pa.Table) -> pa.Table:
        """See CatalogQuery: object ids, reddening, and null where Photoz has no estimate."""
        ids = pc.binary_join_element_wise(self.survey, rows["objid"].cast(pa.string()), "/")
        estimate = rows["z_phot_survey"]
        known = pc.and_(pc.is_finite(estimate), pc.greater(estimate, -1.0))  # -9999 where the survey's method failed
        estimate = pc.if_else(known, estimate, pa.scalar(None, pa.float64()))
        return (
            rows.set_column(rows.column_names.index("z_phot_survey"), "z_phot_survey", estimate)
            .append_column("ebv", pc.divide(rows["extinction_r"], R_EXTINCTION))
            .append_column("object_id", ids)
            .drop_columns(["extinction_r"])
        )

    def order(self, rows: pa.Table) -> NDArray[np.int64]:
        """See CatalogQuery."""
        ids = rows["objid"].to_numpy()
        return np.lexsort((ids, mixed_hash(ids)))
