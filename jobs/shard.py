"""photoz-job shard"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from jobs.options import JobOptions, flag, takes
from jobs.session import run_job
from photoz.shards import ShardSettings, build_shards

if TYPE_CHECKING:
    from photoz.artifacts import Outcome

EPILOG = """
[bold]Examples[/bold]

photoz-job shard

photoz-job shard --catalog catalog/mgs@v2 --size 128 --scale 0.3 --name mgs-wide

photoz-job shard --catalog catalog/mine --images files

photoz-job shard --task 3 --tasks 16     (slice 3 of 16, as in a Slurm array)
"""


@takes(settings=ShardSettings, options=JobOptions)
def shard(
    settings: ShardSettings,
    options: JobOptions,
    catalog: Annotated[
        str | None, flag("catalog", "Catalogue to cut out (default: catalog/NAME).", metavar="REF")
    ] = None,
) -> None:
    """Fetch an image of every galaxy in a catalogue and pack them into WebDataset tars.

    Galaxies in = samples + failures: one without a usable image is listed in failures.parquet with the reason.
    """

    def job() -> Outcome:
        made_from = options.input("catalog", catalog)
        return build_shards(made_from, settings, options.destination(made_from))

    run_job(options, job)
