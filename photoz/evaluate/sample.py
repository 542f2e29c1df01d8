"""The tested galaxies: predictions joined to the catalogue, each PDF scored while its shard is in memory.

Legend: n galaxies, k redshift bins, e = k + 1 bin edges.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from photoz.artifacts import Artifact
from photoz.errors import BadFormat
from photoz.evaluate.chain import Chain
from photoz.evaluate.metrics import Floats
from photoz.evaluate.pdf_metrics import PdfScores
from photoz.metrics import scaled_residual
from photoz.tables.predictions import about_predictions, bin_edges

EXPECTED = ("object_id", "ra", "dec", "z_phot")
_UNUSED = ("z_mean", "z_mode", "z_lo95", "z_hi95")  # once what they hold is scored
INTERVALS = ("68", "95")
_FROM_CATALOG = ("split", "healpix", "block", "z_phot_survey")
_OF_A_CATALOG = ("object_id", "ra", "dec", "z_spec", *_FROM_CATALOG)


@dataclass(frozen=True)
class Sample:
    """One row a galaxy: the prediction, what the catalogue knows, and its scores.

    The scores are `dz`, `pit`, `crps`, `cde_loss`, `in_68` and `in_95` (1 or 0), NaN where there is none.
    `shard` names the galaxy's shard. `stacked` is the sum of all PDFs, mass in each bin of `edges`. `flags` names the
    bits of the column `flags`.
    """

    galaxies: pd.DataFrame
    edges: Floats | None = None
    stacked: Floats | None = None
    flags: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def scored(self) -> pd.DataFrame:
        """The galaxies that have both a finite z_phot and a known z_spec."""
        has = self.galaxies["dz"].notna()
        return self.galaxies if has.all() else self.galaxies[has].reset_index(drop=True)


def read_sample(chain: Chain) -> Sample:
    """Read all predictions and join the catalogue to them by object id.

    Raises BadFormat for a repeated id, an id that the catalogue lacks, or PDFs on differing bins.
    """
    parts = [_read_shard(chain.predictions, name) for name in chain.predictions.names("*.parquet")]
    if not parts:
        raise BadFormat(f"{chain.predictions.ref}: holds no predictions; expected <split>-000000.parquet")
    galaxies = _joined(pd.concat([part.galaxies for part in parts], ignore_index=True), chain)
    edges = [part.edges for part in parts if part.edges is not None]
    stacked = [part.stacked for part in parts if part.stacked is not None]
    flags = parts[0].flags
    if not edges:
        return Sample(galaxies, flags=flags)
    if any(not np.array_equal(other, edges[0]) for other in edges):
        raise BadFormat(f"{chain.predictions.ref}: its files hold PDFs on differing redshift bins")
    return Sample(galaxies, edges[0], np.sum(stacked, axis=0), flags)


def read_pdfs(predictions: Artifact, shard_of: dict[str, str]) -> dict[str, Floats]:
    """Probability mass in each bin, `(k,)`, for each object id in `shard_of`, which says in which shard it lies."""
    found: dict[str, Floats] = {}
    for shard in sorted(set(shard_of.values())):
        table = predictions.table(f"{shard}.parquet")
        if "pdf" not in table.column_names:
            continue
        mass_nk, ids = _masses(table["pdf"]), table["object_id"].to_pylist()
        found |= {object_id: mass_nk[row] for row, object_id in enumerate(ids) if object_id in shard_of}
    return found


def known_rows(chain: Chain) -> pd.DataFrame:
    """Galaxies with redshift and split in the catalogue that the model learned from; none where it isn't stored."""
    if chain.training is None:
        return chain.catalog_rows.head(0)
    same = chain.training.ref == chain.catalog.ref
    rows = chain.catalog_rows if same else read_catalog(chain.training)
    known = rows["split"].notna() & rows["z_spec"].notna()
    return rows if known.all() else rows[known].reset_index(drop=True)


def read_catalog(catalog: Artifact) -> pd.DataFrame:
    """The columns that are used here, of a catalogue whose table may have hundreds."""
    with catalog.parquet("catalog.parquet") as file:
        present = file.schema_arrow.names
    wanted = [name for name in present if name in _OF_A_CATALOG or name.startswith("mag_")]
    return _frame(catalog.table("catalog.parquet", wanted))


def _read_shard(predictions: Artifact, name: str) -> Sample:
    table = predictions.table(name)
    missing = [column for column in EXPECTED if column not in table.column_names]
    if missing:
        raise BadFormat(f"{predictions.ref}: {name}: has no column {', '.join(missing)}; expected a predictions file")
    galaxies = _frame(table.drop_columns(["pdf"]) if "pdf" in table.column_names else table)
    galaxies["shard"] = name.removesuffix(".parquet")
    if "z_spec" not in galaxies:
        galaxies["z_spec"] = np.nan
    galaxies["dz"] = scaled_residual(galaxies["z_phot"].to_numpy(float), galaxies["z_spec"].to_numpy(float))
    galaxies.loc[~np.isfinite(galaxies["dz"]), "dz"] = np.nan
    known = galaxies["z_spec"].notna()
    for share in INTERVALS:
        low, high = f"z_lo{share}", f"z_hi{share}"
        if {low, high} <= set(galaxies.columns):
            inside = galaxies["z_spec"].between(galaxies[low], galaxies[high]).astype(float)
            galaxies[f"in_{share}"] = inside.where(known & galaxies[low].notna())
    about = about_predictions(table.schema)
    flags = about.get("flags", {})
    galaxies = galaxies.drop(columns=list(_UNUSED), errors="ignore")
    if "pdf" not in table.column_names or table["pdf"].null_count == len(table):
        return Sample(galaxies, flags=flags)
    edges = bin_edges(about, f"{predictions.ref}: {name}")
    return replace(_with_pdf_scores(galaxies, edges, _masses(table["pdf"])), flags=flags)


def _with_pdf_scores(galaxies: pd.DataFrame, edges: Floats, mass_nk: Floats) -> Sample:
    usable = np.isfinite(mass_nk).all(axis=1) & (mass_nk.sum(axis=1) > 0)
    rows = np.flatnonzero(usable & galaxies["dz"].notna().to_numpy())
    scores = PdfScores.of(mass_nk[rows], edges, galaxies["z_spec"].to_numpy(float)[rows])
    for column in ("pit", "crps", "cde_loss"):
        values = np.full(len(galaxies), np.nan)
        values[rows] = getattr(scores, column)
        galaxies[column] = values
    return Sample(galaxies, edges, mass_nk[usable].sum(axis=0))


def _masses(column: pa.ChunkedArray) -> Floats:
    """PDFs `(n, k)` normalised to 1 (they are stored as float16); a missing PDF is NaN."""
    array = column.combine_chunks()
    width = array.type.list_size
    flat = array.flatten() if array.null_count == 0 else pa.concat_arrays(
        [pa.array([None] * width if item is None else item, array.type.value_type) for item in array.to_pylist()]
    )  # fmt: skip
    mass_nk = np.asarray(flat.to_numpy(zero_copy_only=False), float).reshape(len(array), width)
    total = mass_nk.sum(axis=1, keepdims=True)
    return np.asarray(mass_nk / np.where(total > 0, total, 1.0))


def _joined(galaxies: pd.DataFrame, chain: Chain) -> pd.DataFrame:
    catalog = chain.catalog_rows
    ids, known = (pa.array(table["object_id"], pa.string()) for table in (galaxies, catalog))
    row = pc.fill_null(pc.index_in(ids, known), -1).to_numpy()
    unknown = galaxies["object_id"][row < 0]
    if len(unknown):
        raise BadFormat(f"{chain.predictions.ref}: galaxy {unknown.iloc[0]} is not in {chain.catalog.ref}")
    twice = np.flatnonzero(np.bincount(row, minlength=1) > 1)
    if len(twice):
        repeated = catalog["object_id"].iloc[twice[0]]
        raise BadFormat(f"{chain.predictions.ref}: galaxy {repeated} is in it twice; make it again")
    added = [str(name) for name in catalog if name in _FROM_CATALOG or str(name).startswith("mag_")]
    kept = galaxies.drop(columns=[name for name in added if name in galaxies])
    return kept.assign(**{name: catalog[name].array.take(row) for name in added})


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    for name in frame:
        if pd.api.types.is_float_dtype(frame[name]):
            frame[name] = frame[name].astype(float)
    return frame
