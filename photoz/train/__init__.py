"""The train job: shards in, a model that predicts redshift PDFs out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from photoz import runtime
from photoz.train.settings import RECIPE, TrainSettings

if TYPE_CHECKING:
    from photoz.artifacts import Artifact, Destination, Outcome

__all__ = ["TrainSettings", "train_model"]


def train_model(shards: Artifact, settings: TrainSettings, dest: Destination) -> Outcome:
    """Train on the train split, keep the epoch and calibration that do best on val, and publish a model.

    Raises BadInput for shards that can't be trained on, Preempted (its state saved) when asked to stop.
    """
    if settings.nproc == 1 and runtime.computes_on_cpu(settings.device):  # else torch has to be asked, which takes long
        from photoz.artifacts import Draft
        from photoz.data import open_shards

        recipe = settings.recipe(open_shards(shards).count("train"))
        decides = settings.decide(recipe, runtime.world().size, "cpu")
        if found := Draft.existing(dest, kind="model", recipe=RECIPE, settings=decides, inputs=[shards]):
            return found
    from photoz.train.model_job import make_model

    return make_model(shards, settings, dest)
