"""Batches of training images on the device. Legend: b image, c channel, h row, w column."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from photoz.data.batches import to_device
from photoz.train.sample import Labelled

_DEVICE_SHARE = 0.5  # of a GPU's free memory; the rest is for the network
_CHUNK = 4096


class Pixels:
    """A split's images and redshifts: uploaded once where they fit on a GPU, else a batch at a time."""

    def __init__(self, labelled: Labelled, device: torch.device) -> None:
        self._images, self._device = labelled.images, device
        self.z_spec_b = torch.from_numpy(labelled.z_spec.astype(np.float32)).to(device)
        self._resident = self._upload() if device.type == "cuda" and self._fits() else None

    def __len__(self) -> int:
        return len(self.z_spec_b)

    def take(self, indices: NDArray[np.integer[Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (b, c, h, w) as stored, and redshifts (b,), on the device."""
        if self._resident is None:
            images_bchw = to_device(self._images.take_bchw(indices), self._device)
            return images_bchw, self.z_spec_b[torch.from_numpy(indices).to(self._device)]
        where = torch.from_numpy(indices).to(self._device, non_blocking=True)
        return self._resident[where], self.z_spec_b[where]

    def _fits(self) -> bool:
        free, _ = torch.cuda.mem_get_info(self._device)
        return bool(self._images.stored.nbytes <= _DEVICE_SHARE * free)

    def _upload(self) -> torch.Tensor:
        chunks = (np.arange(at, min(at + _CHUNK, len(self))) for at in range(0, len(self), _CHUNK))
        parts = [to_device(self._images.take_bchw(chunk), self._device) for chunk in chunks]
        return torch.cat(parts).contiguous(memory_format=torch.channels_last)
