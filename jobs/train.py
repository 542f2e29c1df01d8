"""photoz-job train"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from jobs.options import JobOptions, flag, takes
from jobs.session import run_job
from photoz.train import TrainSettings, train_model

if TYPE_CHECKING:
    from photoz.artifacts import Outcome

EPILOG = """
[bold]Examples[/bold]

photoz-job train

photoz-job train --shards shards/mgs@v1 --model menko2024 --epochs 50 --name menko

photoz-job train --device cuda --nproc 4     (one process a GPU)

torchrun --nproc-per-node 4 -m jobs train     (the same, started by torchrun)
"""


@takes(settings=TrainSettings, options=JobOptions)
def train(
    settings: TrainSettings,
    options: JobOptions,
    shards: Annotated[str | None, flag("shards", "Shards to train on (default: shards/NAME).", metavar="REF")] = None,
) -> None:
    """Train a network that predicts a redshift PDF, and keep the epoch that does best on the validation split."""

    def job() -> Outcome:
        made_from = options.input("shards", shards)
        return train_model(made_from, settings, options.destination(made_from))

    run_job(options, job)
