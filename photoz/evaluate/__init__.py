"""Scores of predicted redshifts, and the report."""

from photoz.artifacts import Artifact, Destination, Outcome
from photoz.evaluate.settings import EvaluateSettings

__all__ = ["EvaluateSettings", "evaluate_predictions"]


def evaluate_predictions(predictions: Artifact, settings: EvaluateSettings, dest: Destination) -> Outcome:
    """Score predictions where redshifts are known, and write a report.

    Raises BadInput for an artifact of another kind, MissingArtifact if the model, shards or catalogue are gone.
    """
    from photoz.evaluate import job  # scikit-learn and matplotlib take seconds to import: --help does without

    return job.evaluate_predictions(predictions, settings, dest)
