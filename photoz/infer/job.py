"""The infer job, and how it hands over to the code that needs torch."""

from photoz.artifacts import Artifact, Destination, Outcome
from photoz.infer.settings import InferSettings


def infer_redshifts(model: Artifact, shards: Artifact, settings: InferSettings, dest: Destination) -> Outcome:
    """Predict the redshift PDF of every galaxy of a split, one Parquet a shard.

    Raises BadInput where the model was made for other images, Preempted (finished shards kept) when asked to stop.
    """
    from photoz.infer.predict import predict_shards  # torch takes seconds to import: --help does without

    return predict_shards(model, shards, settings, dest)
