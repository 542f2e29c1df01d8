"""The infer job: a model and shards in, one table of redshift PDFs a shard out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from photoz import runtime
from photoz.infer.settings import RECIPE, InferSettings

if TYPE_CHECKING:
    from photoz.artifacts import Artifact, Destination, Outcome

__all__ = ["InferSettings", "infer_redshifts"]


def infer_redshifts(model: Artifact, shards: Artifact, settings: InferSettings, dest: Destination) -> Outcome:
    """Predict the redshift PDF of every galaxy of a split, one Parquet a shard.

    Raises BadInput where the model was made for other images, Preempted (finished shards kept) when asked to stop.
    """
    if runtime.computes_on_cpu(settings.device):  # else torch has to be asked, which takes long to import
        from photoz.artifacts import Draft
        from photoz.data import open_shards

        decides = settings.decide(settings.split_of(open_shards(shards).splits), "cpu")
        inputs = [model, shards]
        if found := Draft.existing(dest, kind="predictions", recipe=RECIPE, settings=decides, inputs=inputs):
            return found
    from photoz.infer.predict import predict_shards

    return predict_shards(model, shards, settings, dest)
