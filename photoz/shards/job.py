"""The job `shard`: a catalogue's galaxies as WebDataset shards with an index beside each."""

import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from itertools import tee
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from photoz import progress
from photoz.artifacts import Artifact, Destination, Draft, Outcome, PieceReceipt
from photoz.data.layout import FAILURES, split_of
from photoz.errors import BadInput, PhotozError
from photoz.runtime import check_stop
from photoz.shards.galaxies import Galaxies
from photoz.shards.plan import PlannedShard, member_keys, plan_shards, shared_keys
from photoz.shards.settings import ShardSettings
from photoz.shards.sources import ImageSource, Origin, decide_origin, open_images
from photoz.shards.write import FAILURE_SCHEMA, ShardWriter, encode

log = logging.getLogger("photoz.shards")

RECIPES = {"jpeg": 1, "files": 2}  # raise one when the same settings come to give other bytes
_ROWS_AT_ONCE = 8192
_MOST_FILES = 256  # open at once, far below any limit on them


def build_shards(catalog: Artifact, settings: ShardSettings, dest: Destination) -> Outcome:
    """See photoz.shards.build_shards."""
    galaxies = Galaxies.of(catalog)
    if galaxies.count == 0:
        raise BadInput(f"{catalog.ref} has no galaxies; make a catalogue with a wider selection")
    origin = decide_origin(catalog, settings, galaxies.schema.names)
    with Draft.begin(
        dest, kind="shards", recipe=RECIPES[origin.images], settings=origin.deciding(), inputs=[catalog]
    ) as draft:
        if draft.published:
            return draft.published
        plan = plan_shards(lambda: galaxies.batches(["object_id", "split"]), settings.samples_per_shard)
        names = set(draft.todo([shard.name for shard in plan]))
        todo = [shard for shard in plan if shard.name in names]
        log.info("%d galaxies make %d shards, of which %d are to be done here", galaxies.count, len(plan), len(todo))
        if todo:
            with open_images(catalog, origin, galaxies, dest.task.count) as source:
                _write_all(draft, source, galaxies, todo)
        if not draft.finish_slice():
            return draft.partial()
        return _publish(draft, origin, galaxies)


def _write_all(draft: Draft, source: ImageSource, galaxies: Galaxies, todo: list[PlannedShard]) -> None:
    # One stream over all shards: the next shard's images are on their way while this one is written.
    for_stamps, to_write = tee(_rows_of(galaxies, todo, draft.scratch))
    stamps = source.stamps(rows for _, rows in for_stamps)
    with progress.stage("images", total=sum(len(shard.rows) for shard in todo), unit="galaxies") as bar:
        writer = ShardWriter(draft, source.image, stamps, bar)
        for shard, rows in to_write:
            check_stop()
            writer.write(shard, rows)


def _rows_of(galaxies: Galaxies, shards: list[PlannedShard], scratch: Path) -> Iterator[tuple[str, pa.Table]]:
    """Each shard's name and its rows with their `key`, in its order; a few shards are in memory at a time."""
    shared = shared_keys(galaxies.batches(["object_id"]))
    rows = sum(len(shard.rows) for shard in shards)
    at_once = max(1, len(shards) * max(_ROWS_AT_ONCE, rows // _MOST_FILES) // rows)
    together = [shards[at : at + at_once] for at in range(0, len(shards), at_once)]
    groups = galaxies.groups([np.concatenate([shard.rows for shard in some]) for some in together], scratch)
    for some, found in zip(together, groups, strict=True):
        keys = member_keys(found["object_id"].to_pylist(), shared)
        keyed, start = found.append_column("key", pa.array(keys)), 0
        for shard in some:
            yield shard.name, keyed.slice(start, len(shard.rows))
            start += len(shard.rows)


def _publish(draft: Draft, origin: Origin, galaxies: Galaxies) -> Outcome:
    receipts = draft.receipts()
    samples, failed = (sum(receipt.facts[what] for receipt in receipts) for what in ("samples", "failures"))
    if samples + failed != galaxies.count:
        raise PhotozError(f"{samples} samples and {failed} failures of {galaxies.count} galaxies; remove the draft")
    failures = _merge_failures(draft, receipts)
    _say(samples, failures)
    if not samples:
        first = failures.slice(0, 1).to_pylist()[0]
        raise BadInput(f"none of {failed} galaxies has a usable image; {first['object_id']}: {first['detail']}")
    draft.put(FAILURES, encode(failures), rows=failed)
    splits: Counter[str] = Counter()
    for receipt in receipts:
        splits[split_of(receipt.piece)] += receipt.facts["samples"]
    about = json.loads((galaxies.schema.metadata or {}).get(b"photoz", b"{}"))
    return draft.commit(
        {
            "galaxies": galaxies.count,
            "samples": samples,
            "failures": failed,
            "splits": dict(splits),
            "image": receipts[0].facts["image"],
            "survey": about.get("survey"),
            "images_from": origin.survey["name"],
            "simulated": bool(about.get("simulated")) or origin.simulated,
        }
    )


def _merge_failures(draft: Draft, receipts: list[PieceReceipt]) -> pa.Table:
    tables = [pq.read_table(io.BytesIO(data)) for data in draft.stages(receipts)]
    return pa.concat_tables([FAILURE_SCHEMA.empty_table(), *tables]).sort_by("object_id")


def _say(samples: int, failures: pa.Table) -> None:
    log.info("%7d galaxies", samples + failures.num_rows)
    for reason in sorted(pc.unique(failures["reason"]).to_pylist()):
        lost = failures.filter(pc.equal(failures["reason"], reason))
        first = lost.slice(0, 1).to_pylist()[0]
        log.info("%7d without image: %s (such as %s: %s)", -lost.num_rows, reason, first["object_id"], first["detail"])
    log.info("%7d samples", samples)
