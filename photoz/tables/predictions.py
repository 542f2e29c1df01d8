"""Files of predictions: columns, flags, and what a file says of itself. Legend: e = number of bins + 1 bin edges."""

import json
from collections.abc import Mapping
from enum import IntFlag
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from photoz.artifacts.parquet import parquet_bytes
from photoz.errors import BadFormat

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


def prediction_schema(edges_e: Floats, model_sha256: str) -> pa.Schema:
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
        _field("pdf", pa.list_(pa.float16(), len(edges_e) - 1), "1", "probability in each redshift bin; see pdf_edges"),
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
    about = {"pdf_edges": edges_e.tolist(), "model_payload_sha256": model_sha256, "flags": flags}
    return pa.schema(fields, metadata={"photoz": json.dumps(about, sort_keys=True)})


def _field(name: str, kind: pa.DataType, unit: str, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit, "description": description})


def encode_predictions(rows: pa.Table) -> bytes:
    """The rows as a Parquet file; the same rows give the same bytes."""
    return parquet_bytes(rows, compression="zstd", use_byte_stream_split=_FLOATS, use_dictionary=False)


def about_predictions(schema: pa.Schema) -> dict[str, Any]:
    """What a predictions file says of itself."""
    try:
        about = json.loads((schema.metadata or {}).get(b"photoz", b"{}"))
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def bin_edges(about: Mapping[str, Any], where: str) -> Floats:
    """Redshift bin edges `(e,)` of the PDFs, from the file's metadata. Raises BadFormat if they are not there."""
    try:
        edges = np.asarray(about["pdf_edges"], float)
    except (KeyError, TypeError, ValueError):
        raise BadFormat(f"{where}: its PDFs come without bin edges (metadata photoz.pdf_edges)") from None
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise BadFormat(f"{where}: the PDFs' bin edges do not ascend")
    return edges
