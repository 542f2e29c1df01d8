"""Batches on a device. Apart from the rest so that reading tables and shards does not import torch."""

import numpy as np
import torch
from numpy.typing import NDArray


def to_device(images_bchw: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Copy a batch (b, c, h, w) to `device` in channels_last, still in its stored dtype.

    Conversion to float and augmentation belong on the device: bytes are a quarter of the traffic.
    """
    batch = torch.from_numpy(images_bchw)
    if device.type == "cuda":
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
