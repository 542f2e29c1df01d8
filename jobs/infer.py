"""photoz-job infer"""

from typing import Annotated

from jobs.options import JobOptions, flag, takes
from jobs.session import run_job
from photoz.artifacts import Outcome
from photoz.infer import InferSettings, infer_redshifts

EPILOG = """
[bold]Examples[/bold]

photoz-job infer

photoz-job infer --model model/mgs@v3 --shards shards/virgo --split all

photoz-job infer --task 0 --tasks 4     (a quarter of the shards, as in a Slurm array)
"""


@takes(settings=InferSettings, options=JobOptions)
def infer(
    settings: InferSettings,
    options: JobOptions,
    model: Annotated[str | None, flag("model", "Model to use (default: model/NAME).", metavar="REF")] = None,
    shards: Annotated[str | None, flag("shards", "Shards to predict (default: shards/NAME).", metavar="REF")] = None,
) -> None:
    """Predict the redshift PDF of every galaxy in a set of shards."""

    def job() -> Outcome:
        images = options.input("shards", shards)
        return infer_redshifts(options.input("model", model), images, settings, options.destination(images))

    run_job(options, job)
