"""Prediction rows: what is read off each PDF, and the schema that says what it means.

Legend: b galaxy, z redshift bin, e = z + 1 bin edges.
"""

import io
import json
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from photoz.model.bins import RedshiftBins
from photoz.model.pdf import point_estimates

Floats = NDArray[np.float64]

_FLOATS = ["z_phot", "z_mean", "z_mode", "z_lo68", "z_hi68", "z_lo95", "z_hi95", "ood_score"]
OOD_LIMIT = 1.5  # normal images rarely reach it: 1 is what 1 in 100 validation galaxies exceed


class Flag(IntFlag):
    """Bits of the `flags` column: reasons to be wary of a row."""

    AT_BIN_EDGE = 1  # the 68 % interval reaches the first or last bin: the true redshift may lie outside
    UNFAMILIAR = 2  # ood_score beyond OOD_LIMIT: a galaxy that the model sees as unlike those in training
    BLANK = 4  # every pixel has the same value: there is nothing to see
    NO_REDDENING = 8  # E(B-V) is unknown, and the model uses it: the mean of its training galaxies was taken


_FLAG_TEXT = (
    f"bit mask, 0 if nothing is wrong: {Flag.AT_BIN_EDGE:d} = the 68 % interval reaches the first or last redshift "
    f"bin, {Flag.UNFAMILIAR:d} = ood_score above {OOD_LIMIT:g}, {Flag.BLANK:d} = a blank image, "
    f"{Flag.NO_REDDENING:d} = E(B-V) unknown to a model that uses it"
)


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
    return pa.table(list(columns.values()), schema=prediction_schema(bins, model_sha256))


def as_stored(pdf_bz: Floats) -> NDArray[np.float16]:
    """PDFs as float16, which keeps each mass to one part in 2,000: sums are 1 within as much."""
    masses_bz = torch.from_numpy(pdf_bz / pdf_bz.sum(axis=1, keepdims=True))
    return np.asarray(masses_bz.to(torch.float16).numpy())  # several times faster than numpy's own conversion


def as_parquet(rows: pa.Table) -> bytes:
    """The rows as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(rows, file, compression="zstd", use_byte_stream_split=_FLOATS, use_dictionary=False)
    return file.getvalue()


def prediction_schema(bins: RedshiftBins, model_sha256: str) -> pa.Schema:
    """Columns with unit and description; the schema's metadata `photoz` holds the PDF's bin edges and the model."""
    redshift = {
        "z_phot": "redshift, median of the PDF",
        "z_mean": "mean of the PDF",
        "z_mode": "centre of the bin where the PDF is densest",
        "z_lo68": "lower end of the central 68 % interval",
        "z_hi68": "upper end of the central 68 % interval",
        "z_lo95": "lower end of the central 95 % interval",
        "z_hi95": "upper end of the central 95 % interval",
    }
    fields = [
        _field("object_id", pa.string(), "", "identifier of the galaxy, as in the catalogue"),
        _field("ra", pa.float64(), "deg", "right ascension, ICRS"),
        _field("dec", pa.float64(), "deg", "declination, ICRS"),
        *(_field(name, pa.float64(), "1", text) for name, text in redshift.items()),
        _field("pdf", pa.list_(pa.float16(), bins.count), "1", "probability in each redshift bin; see pdf_edges"),
        _field(
            "ood_score",
            pa.float32(),
            "1",
            "distance from training galaxies, as the model sees them; > 1 for 1 in 100 of validation",
        ),
        _field("flags", pa.int32(), "", _FLAG_TEXT),
        _field("z_spec", pa.float64(), "1", "spectroscopic redshift, null where unknown"),
    ]
    flags = {flag.name: int(flag) for flag in Flag}
    about = {"pdf_edges": bins.edges.tolist(), "model_payload_sha256": model_sha256, "flags": flags}
    return pa.schema(fields, metadata={"photoz": json.dumps(about, sort_keys=True)})


def _field(name: str, kind: pa.DataType, unit: str, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit, "description": description})


def _flags(answers: Answers, lo68_b: Floats, hi68_b: Floats, edges_e: Floats) -> NDArray[np.int32]:
    at_edge_b = (lo68_b <= edges_e[1]) | (hi68_b >= edges_e[-2])
    said = (
        (at_edge_b, Flag.AT_BIN_EDGE),
        (answers.ood_score_b > OOD_LIMIT, Flag.UNFAMILIAR),
        (answers.blank_b, Flag.BLANK),
        (answers.lacks_context_b, Flag.NO_REDDENING),
    )
    return np.asarray(sum(where_b * int(flag) for where_b, flag in said), np.int32)
