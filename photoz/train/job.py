"""The train job: its settings, and how it hands over to the code that needs torch."""

from photoz.artifacts import Artifact, Destination, Outcome
from photoz.train.settings import TrainSettings


def train_model(shards: Artifact, settings: TrainSettings, dest: Destination) -> Outcome:
    """Train on the train split, keep the epoch and calibration that do best on val, and publish a model.

    Raises BadInput for shards that can't be trained on, Preempted (its state saved) when asked to stop.
    """
    from photoz.train.model_job import make_model  # torch takes seconds to import: --help does without

    return make_model(shards, settings, dest)
