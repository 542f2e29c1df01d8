"""photoz-job infer"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import JobOptions, flag, takes
from jobs.session import run_job
from photoz.infer import InferSettings, infer_redshifts
from photoz.model.names import NETWORKS, TORCHVISION

if TYPE_CHECKING:
    from photoz.artifacts import Outcome

EPILOG = """
[bold]Examples[/bold]

photoz-job infer

photoz-job infer --model model/mgs@v3 --shards shards/virgo --split all

photoz-job infer --task 0 --tasks 4     (a quarter of the shards, as in a Slurm array)
"""


def _no_network(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> str | None:
    # A flag may name a model that is called like a network; the variable means train's network, too.
    source = ctx.get_parameter_source(param.name)
    if value and source and source.name == "ENVIRONMENT" and (value in NETWORKS or value.startswith(TORCHVISION)):
        raise typer.BadParameter(
            f"{value!r}: the name of a network, where infer expects the ref of a trained model: "
            "give --model model/NAME, such as model/mgs, or unset the variable"
        )
    return value


@takes(settings=InferSettings, options=JobOptions)
def infer(
    settings: InferSettings,
    options: JobOptions,
    model: Annotated[
        str | None, flag("model", "Model to use (default: model/NAME).", metavar="REF", callback=_no_network)
    ] = None,
    shards: Annotated[str | None, flag("shards", "Shards to predict (default: shards/NAME).", metavar="REF")] = None,
) -> None:
    """Predict the redshift PDF of every galaxy in a set of shards."""

    def job() -> Outcome:
        options.ref("model", model)  # a mistake in it is not found only after a wait for the shards
        images = options.input("shards", shards)
        return infer_redshifts(options.input("model", model), images, settings, options.destination(images))

    run_job(options, job)
