"""A catalogue's rows as they are needed, so that its size does not matter: a pass over the file, never all at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from photoz.artifacts import Artifact

_FILE = "catalog.parquet"


@dataclass(frozen=True)
class Galaxies:
    """The rows of a catalogue artifact and what its file says of them."""

    catalog: Artifact
    count: int
    schema: pa.Schema

    @classmethod
    def of(cls, catalog: Artifact) -> "Galaxies":
        """Open a catalogue. Raises BadFormat for a file that is broken."""
        with catalog.parquet(_FILE) as file:
            return cls(catalog, file.metadata.num_rows, file.schema_arrow)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows in the file's order, all columns or some, a few thousand at a time."""
        return self.catalog.batches(_FILE, columns)

    def take(self, rows: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of these numbers, in this order: one pass over the file, however few they are."""
        order = np.argsort(rows)
        ascending, found, start = rows[order], [], 0
        for batch in self.batches(columns):
            low, high = np.searchsorted(ascending, (start, start + batch.num_rows))
            if high > low:
                found.append(batch.take(pa.array(ascending[low:high] - start)))
            start += batch.num_rows
        wanted = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pa.concat_tables([wanted.empty_table(), *found]).take(pa.array(back))
