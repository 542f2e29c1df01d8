"""Shard by shard: decode, ask the model, write rows. A shard is the piece that a stopped job keeps."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from photoz import runtime
from photoz.artifacts import Artifact, Destination, Draft
from photoz.data import ShardSet, open_shards
from photoz.data.batches import on_device, to_device
from photoz.data.layout import ALL, reddening_of
from photoz.errors import BadInput
from photoz.infer.rows import Answers, Flag, as_parquet, prediction_table
from photoz.infer.settings import InferSettings
from photoz.model.devices import choose_device, keep_freed_memory
from photoz.model.network import Observed
from photoz.model.orientation import orientations_of
from photoz.model.redshift_model import RedshiftModel, ask
from photoz.model.registry import ImageShape
from photoz.model.saved import load_model
from photoz.ordered import in_order

RECIPE = 5  # raise it when the same settings come to give other bytes
MOST_AT_ONCE = 8  # shards: each is held decoded, and has a batch's intermediate images


@dataclass(frozen=True)
class Inference:
    """What is to be predicted, with which model, and where to."""

    model: Artifact
    shards: Artifact
    settings: InferSettings
    dest: Destination

    @cached_property
    def source(self) -> ShardSet:
        """The shards, opened."""
        return open_shards(self.shards)

    @cached_property
    def device(self) -> torch.device:
        """Where to compute."""
        return choose_device(self.settings.device)

    @property
    def split(self) -> str:
        """Which galaxies."""
        return self.settings.split or ("test" if "test" in self.source.splits else ALL)

    @property
    def pieces(self) -> list[str]:
        """All their shards."""
        return self.source.shard_names(self.split)

    def trained(self) -> RedshiftModel:
        """The model, on the CPU. Raises BadInput if it was made for other images."""
        trained = load_model(self.model, torch.device("cpu"))
        _check_images(trained, self.source, self.model)
        return trained

    def begin(self) -> Draft:
        """See Draft.begin."""
        decides = {"split": self.split, "device": self.device.type} | ({"tta": True} if self.settings.tta else {})
        inputs = [self.model, self.shards]
        return Draft.begin(self.dest, kind="predictions", recipe=RECIPE, settings=decides, inputs=inputs)

    def make(
        self,
        draft: Draft,
        trained: RedshiftModel,
        pieces: list[str],
        done: Callable[[int], None],
        at_once: int = MOST_AT_ONCE,
    ) -> None:
        """Make these pieces, up to `at_once` of them at a time; tells `done` the galaxies of each that is made."""
        if self.device.type == "cpu":
            keep_freed_memory()
        trained.network.to(self.device)
        at_once, batches_at_once = _share_cores(min(len(pieces), at_once), self.device)
        makes = _Predictions(
            self.source, trained, self.settings, draft, self.model.payload_sha256, self.device, batches_at_once
        )
        # numpy's own threads would wait for work in a loop, on cores that other shards need
        with threadpool_limits(1, user_api="blas"):
            for galaxies in in_order(makes.shard, pieces, at_once):
                done(galaxies)


def _share_cores(shards: int, device: torch.device) -> tuple[int, int]:
    """How many shards to work on at once, and how many batches of each.

    While one waits for a disk, the store or a GPU, others compute. Each batch is one core's: shared among cores, sums
    would round by how many there are, and by how many shards are left to do.
    """
    cores = runtime.usable_cores()
    at_once = max(1, min(cores, shards))
    torch.set_num_threads(1)
    return at_once, max(1, cores // at_once) if device.type == "cpu" else 1


@dataclass(frozen=True)
class _Predictions:
    """What makes the pieces. Several threads use it at once."""

    source: ShardSet
    trained: RedshiftModel
    settings: InferSettings
    draft: Draft
    model_sha256: str
    device: torch.device
    batches_at_once: int

    def shard(self, name: str) -> int:
        """Make and keep the predictions for a shard; returns its number of galaxies."""
        index = self.source.rows(name)
        rows = prediction_table(index, self._answers(name, index), self.trained.bins, self.model_sha256)
        if rows["object_id"].to_pylist() != index["object_id"].to_pylist():
            raise AssertionError(f"{name}: rows are not its galaxies in their order")
        entry = self.draft.put(f"{name}.parquet", as_parquet(rows), rows=len(rows))
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
        reddening_b = reddening_of(index)
        ebv_b = to_device(reddening_b, self.device)
        turns = orientations_of(image.height, image.width) if self.settings.tta else (0,)
        blank: list[torch.Tensor] = []

        def looked_at() -> Iterator[Observed]:
            start = 0
            for images_bchw in self._batches(name):
                blank.append(are_blank(images_bchw))
                yield Observed(images_bchw, ebv_b[start : start + len(images_bchw)])
                start += len(images_bchw)

        found = ask(trained.network, looked_at(), turns, self.batches_at_once)
        scores_b = trained.familiarity.score(found.features_bf)
        no_reddening_b = ~np.isfinite(reddening_b) & trained.network.uses_reddening
        return Answers(trained.pdf(found.answer), scores_b, torch.cat(blank).cpu().numpy(), no_reddening_b)

    def _batches(self, name: str) -> Iterator[torch.Tensor]:
        """A shard's images on the device. A stop is obeyed between batches: on CPUs a shard may take a minute."""
        size = self.settings.images_a_batch(self.device.type, math.prod(self.source.image.shape))
        images_bchw = self.source.images(name)

        def parts() -> Iterator[NDArray[np.generic]]:
            for at in range(0, len(images_bchw), size):
                runtime.check_stop()
                yield images_bchw[at : at + size]

        return on_device(parts(), self.device)


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
