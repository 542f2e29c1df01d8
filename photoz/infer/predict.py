"""Shard by shard: decode, ask the model, write rows. A shard is the piece that a stopped job keeps."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from photoz import progress, runtime
from photoz.artifacts import Artifact, Destination, Draft, Outcome
from photoz.data import ShardSet, open_shards
from photoz.data.batches import on_device, to_device
from photoz.data.layout import context_of
from photoz.data.workers import Workers
from photoz.errors import BadInput
from photoz.infer.rows import Answers, prediction_table
from photoz.infer.settings import RECIPE, InferSettings
from photoz.model.devices import choose_device, describe_device, keep_freed_memory
from photoz.model.network import Batch
from photoz.model.orientation import orientations_of
from photoz.model.redshift_model import RedshiftModel, run_network
from photoz.model.registry import ImageShape
from photoz.model.saved import load_model
from photoz.ordered import in_order
from photoz.tables.predictions import Flag, encode_predictions

log = logging.getLogger("photoz.infer")

_MOST_AT_ONCE = 8  # shards: each is held decoded, and has a batch's intermediate images


def predict_shards(model: Artifact, shards: Artifact, settings: InferSettings, dest: Destination) -> Outcome:
    """See photoz.infer.infer_redshifts."""
    source = open_shards(shards)
    split = settings.split_of(source.splits)
    pieces = source.shard_names(split)
    device = choose_device(settings.device)
    log.info("computing on %s", describe_device(device, runtime.usable_cores()))
    trained = load_model(model, torch.device("cpu"))
    _check_images(trained, source, model)
    decides = settings.decide(split, device.type)
    with Draft.begin(dest, kind="predictions", recipe=RECIPE, settings=decides, inputs=[model, shards]) as draft:
        if draft.published:
            return draft.published
        if device.type == "cpu":
            keep_freed_memory()
        mine = draft.todo(pieces)
        with _decoding(source, mine, device) as workers:  # they start while a GPU does
            trained.network.to(device)
            at_once, batches_at_once = _share_cores(len(mine), device)
            makes = _Predictions(
                source, workers, trained, settings, draft, model.payload_sha256, device, batches_at_once
            )
            _make_all(mine, makes, at_once)
        return _commit(draft, source, pieces, trained, settings)


def _decoding(source: ShardSet, pieces: list[str], device: torch.device) -> AbstractContextManager[Workers | None]:
    """Processes that decode, for a GPU; not on a CPU, whose cores the network needs."""
    return source.workers(sum(map(source.samples, pieces))) if device.type == "cuda" else nullcontext()


def _make_all(pieces: list[str], makes: "_Predictions", at_once: int) -> None:
    """Make these pieces, some at once, and show how it goes."""
    total = sum(map(makes.source.samples, pieces))
    # numpy's own threads would wait for work in a loop, on cores that other shards need
    with progress.stage("infer", total=total, unit="galaxies") as bar, threadpool_limits(1, user_api="blas"):
        started = time.monotonic()
        for galaxies in in_order(makes.shard, pieces, at_once):
            bar.advance(galaxies)
            bar.note(f"{bar.done / max(time.monotonic() - started, 1e-9):.0f} images/s")


def _share_cores(shards: int, device: torch.device) -> tuple[int, int]:
    """How many shards to work on at once, and how many batches of each.

    While one waits for a disk, the store or a GPU, others compute. Each batch is one core's: shared among cores, sums
    would round by how many there are, and by how many shards are left to do.
    """
    cores = runtime.usable_cores()
    at_once = max(1, min(cores, shards, _MOST_AT_ONCE))
    torch.set_num_threads(1)
    return at_once, max(1, cores // at_once) if device.type == "cpu" else 1


@dataclass(frozen=True)
class _Predictions:
    """What makes the pieces. Several threads use it at once."""

    source: ShardSet
    workers: Workers | None  # that decode; None for threads
    trained: RedshiftModel
    settings: InferSettings
    draft: Draft
    model_sha256: str
    device: torch.device
    batches_at_once: int

    def shard(self, name: str) -> int:
        """Make and keep the predictions for a shard; returns its number of galaxies."""
        index = self.source.rows(name, self.source.computed_with)
        rows = prediction_table(index, self._answers(name, index), self.trained.bins, self.model_sha256)
        if rows["object_id"].to_pylist() != index["object_id"].to_pylist():
            raise AssertionError(f"{name}: rows are not its galaxies in their order")
        entry = self.draft.put(f"{name}.parquet", encode_predictions(rows), rows=len(rows))
        flags = rows["flags"].to_numpy()
        counts = {flag.name.lower(): int(((flags & flag) > 0).sum()) for flag in Flag if flag.name}
        self.draft.finish_piece(name, [entry], {"galaxies": len(rows), "flagged": int((flags > 0).sum()), **counts})
        return len(rows)

    def _answers(self, name: str, index: pa.Table) -> Answers:
        """PDFs and scores of a shard's galaxies, the rows of `index`."""
        trained, image = self.trained, self.source.image
        if not len(index):  # its galaxies have no images
            none = np.empty(0, np.bool_)
            return Answers(np.empty((0, trained.bins.count)), np.empty(0), none, none)
        network = trained.network
        context_bk = to_device(context_of(index, network.context), self.device)
        turns = orientations_of(image.height, image.width) if self.settings.tta else (0,)
        blank_b = torch.empty(len(index), dtype=torch.bool, device=self.device)
        found = run_network(network, self._batches(name, context_bk, blank_b), turns, self.batches_at_once)
        scores_b = trained.familiarity.score(found.features_bf)
        lacks_context_b = np.asarray(np.isnan(context_of(index, network.used_context)).any(axis=1))
        pdf_bz = trained.pdf(found.answer)
        # The answer by itself, too: to make a PDF an infinite redshift is clipped to the bins.
        check_finite({"answer": found.answer, "PDF": pdf_bz, "ood_score": scores_b.astype(np.float32)}, index, name)
        return Answers(pdf_bz, scores_b, blank_b.cpu().numpy(), lacks_context_b)

    def _batches(self, name: str, context_bk: torch.Tensor, blank_b: torch.Tensor) -> Iterator[Batch]:
        """A shard's batches, and into `blank_b` which of its images show nothing."""
        start = 0
        for images_bchw in self._images(name):
            rows = slice(start, start + len(images_bchw))
            blank_b[rows] = are_blank(images_bchw)
            yield Batch.of(images_bchw, context_bk[rows])
            start = rows.stop

    def _images(self, name: str) -> Iterator[torch.Tensor]:
        """A shard's images on the device. A stop is obeyed between batches: on CPUs a shard may take a minute."""
        size = self.settings.images_a_batch(self.device.type, math.prod(self.source.image.shape))
        images_bchw = self.source.images(name, self.workers)

        def parts() -> Iterator[NDArray[np.generic]]:
            for at in range(0, len(images_bchw), size):
                runtime.check_stop()
                yield images_bchw[at : at + size]

        return on_device(parts(), self.device)


def check_finite(found: dict[str, NDArray[np.floating[Any]]], index: pa.Table, shard: str) -> None:
    """Raise BadInput where a galaxy's number is NaN or infinite. Masked pixels make none: they count as sky."""
    for what, values in found.items():
        wrong_b = ~np.isfinite(values.reshape(len(index), -1)).all(axis=1)
        if wrong_b.any():
            first = index["object_id"][int(np.argmax(wrong_b))]
            raise BadInput(
                f"{shard}: the model's {what} is NaN or infinite for {np.count_nonzero(wrong_b)} of {len(index)} "
                f"galaxies, first {first}: expected finite numbers; look for extreme pixels, or train the model again"
            )


def are_blank(images_bchw: torch.Tensor) -> torch.Tensor:
    """Which images have one value throughout, or none that is finite, (b,). Few get past their first row."""
    if images_bchw.is_cuda:
        return _have_one_value(images_bchw)  # to pick some there would wait for it
    blank_b = _have_one_value(images_bchw[:, :, :1])
    blank_b[blank_b.clone()] = _have_one_value(images_bchw[blank_b])
    return blank_b


def _have_one_value(images_bchw: torch.Tensor) -> torch.Tensor:
    same_b = (images_bchw == images_bchw[:, :1, :1, :1]).flatten(1).all(1)
    return same_b if not images_bchw.is_floating_point() else same_b | ~images_bchw.isfinite().flatten(1).any(1)


def _check_images(trained: RedshiftModel, source: ShardSet, model: Artifact) -> None:
    image = source.image
    found = ImageShape(image.channels, image.height, image.width)
    if (found, image.dtype) != (trained.image, trained.scaling.dtype):
        raise BadInput(
            f"{model.ref} was trained on {trained.image} ({trained.scaling.dtype}), {source.artifact.ref} holds "
            f"{found} ({image.dtype}): expected the same; cut these shards like those it was trained on"
        )
    if image.unit and trained.scaling.unit and image.unit != trained.scaling.unit:
        raise BadInput(
            f"{model.ref} was trained on pixels in {trained.scaling.unit!r}, {source.artifact.ref} states "
            f"{image.unit!r}: expected the same; convert the images first"
        )


def _commit(
    draft: Draft, source: ShardSet, pieces: list[str], trained: RedshiftModel, settings: InferSettings
) -> Outcome:
    if not draft.finish_slice():
        return draft.partial()
    receipts = draft.receipts()
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
    about = {"splits": splits, "model": trained.name, "redshift_bins": trained.bins.to_json(), "tta": settings.tta}
    return draft.commit(totals | about)
