"""The job `shard`: images of a catalogue's galaxies in WebDataset tars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from photoz.shards.settings import ShardSettings

if TYPE_CHECKING:
    from photoz.artifacts import Artifact, Destination, Outcome

__all__ = ["ShardSettings", "build_shards"]


def build_shards(catalog: Artifact, settings: ShardSettings, dest: Destination) -> Outcome:
    """Write the shards of a catalogue, or this task's slice of them.

    Every galaxy ends up as a sample or, with the reason, in failures.parquet. Raises BadInput for settings that
    don't fit the catalogue or if no galaxy has an image, TryAgain if the survey keeps failing.
    """
    from photoz.shards import job

    return job.build_shards(catalog, settings, dest)
