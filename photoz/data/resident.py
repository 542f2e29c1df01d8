"""A split's images in a device's own memory. Apart from the rest: it needs torch."""

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from photoz.data.batches import tensor_bchw
from photoz.data.decode import stored_shape
from photoz.data.layout import ImageFormat
from photoz.data.shard_set import ShardSet

log = logging.getLogger("photoz.data")


@dataclass
class ResidentImages:
    """Images on a device, as they come out of the decoder (see decode.stored_shape), and their rows."""

    stored: torch.Tensor
    table: pa.Table
    image: ImageFormat

    def __len__(self) -> int:
        return len(self.stored)

    def take_bchw(self, numbers: torch.Tensor) -> torch.Tensor:
        """A copy of the images of these numbers, (b, c, h, w), on the device, where the numbers are, too."""
        return tensor_bchw(self.stored[numbers], self.image)


def load_resident(shards: ShardSet, split: str, device: torch.device) -> ResidentImages:
    """Decode a split straight to a device, a shard at a time. Raises BadFormat for a broken shard, Preempted."""
    image, count = shards.image, shards.count(split)
    log.info("%s: %d images, decoded once and kept on the GPU: %.2g GB", split, count, count * image.image_bytes / 1e9)
    kind = torch.from_numpy(np.empty(0, image.dtype)).dtype
    stored = torch.empty((count, *stored_shape(image)), dtype=kind, device=device)
    for place, images in shards.decode(split):
        stored[place] = torch.from_numpy(images).to(device)
    return ResidentImages(stored, shards.table(split, shards.computed_with), image)
