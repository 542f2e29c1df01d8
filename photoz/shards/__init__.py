"""The job `shard`: images of a catalogue's galaxies in WebDataset tars."""

from photoz.shards.job import build_shards
from photoz.shards.settings import ShardSettings

__all__ = ["ShardSettings", "build_shards"]
