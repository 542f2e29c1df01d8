"""Batches of training images on the device. Legend: b image, c channel, h row, w column."""

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from photoz.data.batches import to_device
from photoz.train.sample import Labelled

_DEVICE_SHARE = 0.5  # of a GPU's free memory; the rest is for the network
_CHUNK = 4096

Indices = NDArray[np.integer[Any]]
Batch = tuple[torch.Tensor, torch.Tensor]  # images (b, c, h, w) as stored, and redshifts (b,), on the device


class Pixels:
    """A split's images and redshifts: uploaded once where they fit on a GPU, else a batch at a time."""

    def __init__(self, labelled: Labelled, device: torch.device) -> None:
        self._images, self._device = labelled.images, device
        self.z_spec_b = torch.from_numpy(labelled.z_spec.astype(np.float32)).to(device)
        self._resident = self._upload() if device.type == "cuda" and self._fits() else None

    def __len__(self) -> int:
        return len(self.z_spec_b)

    def take(self, indices: Indices) -> Batch:
        """The galaxies at `indices`."""
        return next(iter(self.batches([indices])))

    def batches(self, parts: Iterable[Indices]) -> Iterator[Batch]:
        """The galaxies of each part, in order; a batch is good until the next but one."""
        if self._resident is not None:
            for part in parts:
                where = torch.from_numpy(part).to(self._device, non_blocking=True)
                yield self._resident[where], self.z_spec_b[where]
            return
        asked, wanted = tee(parts)
        for part, images_bchw in zip(asked, self._images.batches(wanted), strict=True):
            yield to_device(images_bchw, self._device), self.z_spec_b[torch.from_numpy(part).to(self._device)]

    def _fits(self) -> bool:
        free, _ = torch.cuda.mem_get_info(self._device)
        return len(self) * self._images.image.image_bytes <= _DEVICE_SHARE * free

    def _upload(self) -> torch.Tensor:
        chunks = (np.arange(at, min(at + _CHUNK, len(self))) for at in range(0, len(self), _CHUNK))
        parts = [to_device(images_bchw, self._device) for images_bchw in self._images.batches(chunks)]
        return torch.cat(parts).contiguous(memory_format=torch.channels_last)
