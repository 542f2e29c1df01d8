"""One shard: its tar, its index, and its list of galaxies without an image."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson
import pyarrow as pa

from photoz.artifacts import Draft
from photoz.artifacts.parquet import parquet_bytes
from photoz.data.layout import MEMBER_COLUMNS, ImageFormat, index_name, tar_name
from photoz.errors import PhotozError
from photoz.images.picture import NoCutout
from photoz.progress import Stage
from photoz.shards.tar import ShardTar

# Paths and digests of the user's files stay in the members' JSON.
NOT_INDEXED = ("key", "image", "image_sha256")
FAILURE_SCHEMA = pa.schema(
    [
        ("object_id", pa.string()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("split", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
_SHOWN_EVERY = 20  # galaxies; a bar that moves for each costs more than writing it
_ROWS_AT_ONCE = 256


@dataclass
class _Written:
    """What has become of a shard's galaxies, by their place in it."""

    members: list[tuple[str, int, int, int, int]] = field(default_factory=list)  # MEMBER_COLUMNS
    kept: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    faults: list[NoCutout] = field(default_factory=list)


@dataclass(frozen=True)
class ShardWriter:
    """Writes shard after shard from one stream of stamps, which come in the order of the shards' galaxies."""

    draft: Draft
    image: ImageFormat
    stamps: Iterator[bytes | NoCutout]
    bar: Stage

    def write(self, shard: str, galaxies: pa.Table) -> None:
        """Finish the piece `shard`: a tar and an index of the galaxies (catalogue rows and their `key`).

        Raises what the stream raises, and TryAgain if the local disk is full; nothing is published then.
        """
        path = self.draft.scratch / tar_name(shard)
        with ShardTar(path) as tar:
            written = self._fill(tar, galaxies)
        samples, failures = len(written.kept), len(written.failed)
        if samples + failures != galaxies.num_rows:
            raise PhotozError(f"{shard}: {samples} samples and {failures} failures of {galaxies.num_rows} galaxies")
        staged = []
        if failures:
            without = _failures(_take(galaxies, written.failed), written.faults)
            staged.append(self.draft.put_stage(f"failures/{shard}.parquet", encode(without)))
        index = encode(_index(_take(galaxies, written.kept), written))
        files = [
            self.draft.put(tar_name(shard), path, rows=samples),
            self.draft.put(index_name(shard), index, rows=samples),
        ]
        path.unlink()
        facts = {"samples": samples, "failures": failures, "image": self.image.to_summary()}
        self.draft.finish_piece(shard, files, facts, staged)

    def _fill(self, tar: ShardTar, galaxies: pa.Table) -> _Written:
        written = _Written()
        stamps = islice(self.stamps, galaxies.num_rows)
        for place, (row, stamp) in enumerate(zip(_rows(galaxies), stamps, strict=True)):
            if isinstance(stamp, NoCutout):
                written.failed.append(place)
                written.faults.append(stamp)
            else:
                written.kept.append(place)
                written.members.append(self._add(tar, row.pop("key"), stamp, row))
            if place % _SHOWN_EVERY == _SHOWN_EVERY - 1:
                self.bar.advance(_SHOWN_EVERY)
        self.bar.advance(galaxies.num_rows % _SHOWN_EVERY)
        return written

    def _add(self, tar: ShardTar, key: str, stamp: bytes, row: dict[str, Any]) -> tuple[str, int, int, int, int]:
        about = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
        offset = tar.add(f"{key}.{self.image.format}", stamp)
        return key, offset, len(stamp), tar.add(f"{key}.json", about), len(about)


def encode(table: pa.Table) -> bytes:
    """An index, or a list of failures, as Parquet."""
    return parquet_bytes(table, row_group_size=65_536, compression="zstd", compression_level=3)


def _rows(galaxies: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in galaxies.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _take(galaxies: pa.Table, places: list[int]) -> pa.Table:
    return galaxies.take(pa.array(places, pa.int64()))


def _index(galaxies: pa.Table, written: _Written) -> pa.Table:
    columns = list(zip(*written.members, strict=True)) or [()] * len(MEMBER_COLUMNS)
    types = [pa.string(), *[pa.int64()] * (len(MEMBER_COLUMNS) - 1)]
    index = {name: pa.array(values, kind) for name, values, kind in zip(MEMBER_COLUMNS, columns, types, strict=True)}
    catalogue = galaxies.drop_columns([name for name in NOT_INDEXED if name in galaxies.column_names])
    fields = [pa.field(name, kind, nullable=False) for name, kind in zip(MEMBER_COLUMNS, types, strict=True)]
    schema = pa.schema([*fields, *catalogue.schema], metadata=catalogue.schema.metadata)
    return pa.Table.from_arrays([*index.values(), *catalogue.columns], schema=schema)


def _failures(galaxies: pa.Table, faults: list[NoCutout]) -> pa.Table:
    known = [galaxies[name] for name in FAILURE_SCHEMA.names[:4]]
    reasons = pa.array([fault.reason for fault in faults], pa.string())
    # A path that is no UTF-8 has lone surrogates, which no file takes.
    details = pa.array([fault.detail.encode(errors="backslashreplace").decode() for fault in faults], pa.string())
    return pa.Table.from_arrays([*known, reasons, details], schema=FAILURE_SCHEMA)
