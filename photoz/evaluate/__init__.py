"""Scores of predicted redshifts, and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from photoz.evaluate.settings import EvaluateSettings

if TYPE_CHECKING:
    from photoz.artifacts import Artifact, Destination, Outcome

__all__ = ["EvaluateSettings", "evaluate_predictions"]


def evaluate_predictions(predictions: Artifact, settings: EvaluateSettings, dest: Destination) -> Outcome:
    """Score predictions where redshifts are known, and write index.html, metrics.json, figures and an animation.

    Raises BadInput for an artifact of another kind, MissingArtifact if the model, shards or catalogue are gone.
    """
    from photoz.evaluate import job

    return job.evaluate_predictions(predictions, settings, dest)
