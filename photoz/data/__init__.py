"""From shards to batches: index tables, decoded images, and the order in which training sees them.

`photoz.data.batches` copies batches to a device; it is not imported here because it needs torch.
"""

from photoz.data.epochs import EpochPlan
from photoz.data.image_set import Images
from photoz.data.layout import ImageFormat
from photoz.data.shard_set import ShardBatch, ShardSet, open_shards

__all__ = ["EpochPlan", "ImageFormat", "Images", "ShardBatch", "ShardSet", "open_shards"]
