"""photoz-job evaluate"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from jobs.options import JobOptions, flag, takes
from jobs.session import run_job
from photoz.evaluate import EvaluateSettings, evaluate_predictions

if TYPE_CHECKING:
    from photoz.artifacts import Outcome

EPILOG = """
[bold]Examples[/bold]

photoz-job evaluate

photoz-job evaluate --predictions predictions/mgs@v2 --store s3://bucket/photoz

photoz-job artifacts export report/mgs ./report     (then open report/index.html)
"""


@takes(settings=EvaluateSettings, options=JobOptions)
def evaluate(
    settings: EvaluateSettings,
    options: JobOptions,
    predictions: Annotated[
        str | None, flag("predictions", "Predictions to score (default: predictions/NAME).", metavar="REF")
    ] = None,
) -> None:
    """Score predictions against spectroscopic redshifts and baselines, and write an HTML report."""

    def job() -> Outcome:
        made_from = options.input("predictions", predictions)
        return evaluate_predictions(made_from, settings, options.destination(made_from))

    run_job(options, job)
