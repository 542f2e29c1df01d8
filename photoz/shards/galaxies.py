"""A catalogue's rows as they are needed, so that its size does not matter: never all of them in memory at once."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from photoz.artifacts import Artifact

Rows = NDArray[np.int64]

_FILE = "catalog.parquet"
_ROWS_AT_ONCE = 8192


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
        return _joined(self.catalog.batches(_FILE, columns))

    def spread(self, most: int, columns: Sequence[str]) -> pa.Table:
        """Up to `most` rows from all over the file, in its order."""
        rows = np.unique(np.linspace(0, self.count - 1, most).astype(np.int64))
        found, start = [], 0
        for batch in self.batches(columns):
            low, high = np.searchsorted(rows, (start, start + batch.num_rows))
            found.append(batch.take(pa.array(rows[low:high] - start)))
            start += batch.num_rows
        return pa.concat_tables(found)

    def groups(self, rows_of_group: Sequence[Rows], folder: Path) -> Iterator[pa.Table]:
        """The rows of each group, in its order. No row is in two groups.

        One pass writes each group's rows to a file of its own in `folder`; a file is deleted when its group is read.
        """
        paths = [folder / f"group-{number}.arrow" for number in range(len(rows_of_group))]
        self._write_groups(rows_of_group, paths)
        for rows, path in zip(rows_of_group, paths, strict=True):
            with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as stream:
                found = stream.read_all()
            path.unlink()
            # The file has them in the catalogue's order.
            place = np.empty_like(rows)
            place[np.argsort(rows)] = np.arange(len(rows))
            yield found.take(pa.array(place))

    def _write_groups(self, rows_of_group: Sequence[Rows], paths: Sequence[Path]) -> None:
        group_of_row = np.full(self.count, len(rows_of_group), np.int16)
        for number, rows in enumerate(rows_of_group):
            group_of_row[rows] = number
        with ExitStack() as stack:
            files = [stack.enter_context(pa.ipc.new_stream(str(path), self.schema)) for path in paths]
            start = 0
            for batch in self.batches():
                group = group_of_row[start : start + batch.num_rows]
                by_group = batch.take(pa.array(np.argsort(group, kind="stable"))).combine_chunks()
                ends = np.searchsorted(np.sort(group), np.arange(len(rows_of_group) + 1))
                for file, low, high in zip(files, ends[:-1], ends[1:], strict=True):
                    file.write_table(by_group.slice(low, high - low))
                start += batch.num_rows


def _joined(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `_ROWS_AT_ONCE` or a little more: much is done once a table."""
    waiting: list[pa.Table] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()
