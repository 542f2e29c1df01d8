"""Scores of predicted redshifts, and the report."""

from photoz.evaluate.job import EvaluateSettings, evaluate_predictions

__all__ = ["EvaluateSettings", "evaluate_predictions"]
