"""Prediction rows: what is read off each PDF, and the schema that says what it means.

Legend: b galaxy, z redshift bin, e = z + 1 bin edges.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from photoz.model.bins import RedshiftBins
from photoz.model.pdf import point_estimates
from photoz.tables.predictions import OOD_LIMIT, Flag, prediction_schema

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What the model says of the galaxies of one shard, in their order."""

    pdf_bz: Floats
    ood_score_b: Floats
    blank_b: NDArray[np.bool_]
    lacks_context_b: NDArray[np.bool_]  # a number beside the image that the model uses is unknown


def prediction_table(index: pa.Table, answers: Answers, bins: RedshiftBins, model_sha256: str) -> pa.Table:
    """Rows of the contract's predictions, one a galaxy of `index`, in its order."""
    stored_bz = as_stored(answers.pdf_bz)
    # Read off what is stored, so that anyone gets the same numbers from the file.
    points = point_estimates(stored_bz.astype(np.float64), bins.edges)
    flags_b = _flags(answers, points.lo68, points.hi68, bins.edges)
    known = index["z_spec"] if "z_spec" in index.column_names else pa.nulls(len(index), pa.float64())
    columns = {
        "object_id": index["object_id"].cast(pa.string()),
        "ra": index["ra"].cast(pa.float64()),
        "dec": index["dec"].cast(pa.float64()),
        "z_phot": points.median,
        "z_mean": points.mean,
        "z_mode": points.mode,
        "z_lo68": points.lo68,
        "z_hi68": points.hi68,
        "z_lo95": points.lo95,
        "z_hi95": points.hi95,
        "pdf": pa.FixedSizeListArray.from_arrays(pa.array(stored_bz.ravel()), bins.count),
        "ood_score": answers.ood_score_b.astype(np.float32),
        "flags": flags_b,
        "z_spec": known.cast(pa.float64()),
    }
    return pa.table(list(columns.values()), schema=prediction_schema(bins.edges, model_sha256))


def as_stored(pdf_bz: Floats) -> NDArray[np.float16]:
    """PDFs as float16, which keeps each mass to one part in 2,000: sums are 1 within as much."""
    masses_bz = torch.from_numpy(pdf_bz / pdf_bz.sum(axis=1, keepdims=True))
    return np.asarray(masses_bz.to(torch.float16).numpy())  # several times faster than numpy's own conversion


def _flags(answers: Answers, lo68_b: Floats, hi68_b: Floats, edges_e: Floats) -> NDArray[np.int32]:
    at_edge_b = (lo68_b <= edges_e[1]) | (hi68_b >= edges_e[-2])
    said = (
        (at_edge_b, Flag.AT_BIN_EDGE),
        (answers.ood_score_b > OOD_LIMIT, Flag.UNFAMILIAR),
        (answers.blank_b, Flag.BLANK),
        (answers.lacks_context_b, Flag.NO_REDDENING),
    )
    return np.asarray(sum(where_b * int(flag) for where_b, flag in said), np.int32)
