"""The job `infer`: a model's redshift PDFs for all galaxies of a split, by one process or several."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from photoz import progress, runtime
from photoz.artifacts import Artifact, Destination, Draft, Outcome, Ref, load, open_store
from photoz.infer.inference import MOST_AT_ONCE, Inference
from photoz.infer.rows import Flag
from photoz.infer.settings import InferSettings
from photoz.model.redshift_model import RedshiftModel
from photoz.processes import reports

log = logging.getLogger("photoz.infer")

# Threads of one process wait for the interpreter's lock: four processes, of four cores each, did two to four times as
# much on an H100 (benchmarks/RESULTS.md); more were not measured. With fewer images their start takes longer.
_MOST_PROCESSES, _CORES_A_PROCESS, _PROCESSES_FROM = 4, 4, 200_000


def predict_shards(model: Artifact, shards: Artifact, settings: InferSettings, dest: Destination) -> Outcome:
    """See photoz.infer.infer_redshifts."""
    work = Inference(model, shards, settings, dest)
    trained = work.trained()
    with work.begin() as draft:
        if draft.published:
            return draft.published
        todo = draft.todo(work.pieces)
        images = sum(map(work.source.samples, todo))
        with _shown(images) as done:
            parts = _processes(images, len(todo), work)
            if parts > 1:
                for galaxies in reports(_works(work, todo, parts)):
                    done(galaxies)
                todo = draft.todo(work.pieces)
            if todo:
                work.make(draft, trained, todo, done)
        return _commit(draft, work, trained)


def _processes(images: int, shards: int, work: Inference) -> int:
    """How many to do this with. On a CPU threads will do: they compute outside of the interpreter's lock.

    A forced draft would not take what other processes have made for its own.
    """
    if work.device.type != "cuda" or images < _PROCESSES_FROM or work.dest.force:
        return 1
    return max(1, min(_MOST_PROCESSES, shards, runtime.usable_cores() // _CORES_A_PROCESS))


@dataclass(frozen=True)
class _Part:
    """A part of an inference for a process of its own. An open store can't be sent to it, its address can."""

    store_url: str
    model: str
    shards: str
    settings: InferSettings
    name: str
    pieces: list[str]
    cores: list[int]
    at_once: int


def _works(work: Inference, pieces: list[str], parts: int) -> list[Callable[[Callable[[int], None]], None]]:
    """What each of so many processes is to do. Together they have as many shards in hand as one would have."""
    cores, model, shards = sorted(os.sched_getaffinity(0)), str(work.model.ref), str(work.shards.ref)
    at_once = max(1, MOST_AT_ONCE // parts)
    return [
        partial(
            _make_part,
            _Part(
                store_url=work.dest.store.url,
                model=model,
                shards=shards,
                settings=work.settings,
                name=work.dest.name,
                pieces=pieces[number::parts],
                cores=cores[number::parts] or cores,
                at_once=at_once,
            ),
        )
        for number in range(parts)
    ]


def _make_part(part: _Part, done: Callable[[int], None]) -> None:
    os.sched_setaffinity(0, part.cores)
    store = open_store(part.store_url)
    model, shards = (load(store, Ref.parse(ref)) for ref in (part.model, part.shards))
    work = Inference(model, shards, part.settings, Destination(store, part.name))
    with work.begin() as draft:
        if not draft.published:  # by the same job elsewhere
            work.make(draft, work.trained(), part.pieces, done, part.at_once)


@contextmanager
def _shown(images: int) -> Iterator[Callable[[int], None]]:
    """Progress over so many images; gives what counts some as done."""
    with progress.stage("infer", total=images, unit="galaxies") as bar:
        started = time.monotonic()

        def done(galaxies: int) -> None:
            bar.advance(galaxies)
            bar.note(f"{bar.done / max(time.monotonic() - started, 1e-9):.0f} images/s")

        yield done


def _commit(draft: Draft, work: Inference, trained: RedshiftModel) -> Outcome:
    if not draft.finish_slice():
        return draft.partial()
    receipts, pieces, source = draft.receipts(), work.pieces, work.source
    if [receipt.piece for receipt in receipts] != sorted(pieces):
        raise AssertionError(f"predicted {len(receipts)} shards of {len(pieces)}")
    expected, galaxies = sum(map(source.samples, pieces)), sum(receipt.facts["galaxies"] for receipt in receipts)
    if galaxies != expected:
        raise AssertionError(f"{galaxies} rows for {expected} galaxies")
    names = ("galaxies", "flagged", *(flag.name.lower() for flag in Flag if flag.name))
    totals = {name: sum(receipt.facts[name] for receipt in receipts) for name in names}
    if unknown := totals["no_reddening"]:
        log.warning(
            "%d of %d galaxies have no E(B-V), which this model was trained with: its average was taken, "
            "and their redshifts will be the worse for it; give their table a column ebv",
            unknown,
            galaxies,
        )
    splits = sorted({piece.rpartition("-")[0] for piece in pieces})
    about = {"splits": splits, "model": trained.name, "redshift_bins": trained.bins.to_json(), "tta": work.settings.tta}
    return draft.commit(totals | about)
