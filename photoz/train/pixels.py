"""Batches of training galaxies on the device. Legend: b image, c channel, h row, w column, k context number."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import tee

import numpy as np
import torch
from numpy.typing import NDArray

from photoz.data.batches import numbers_on, on_device, picked
from photoz.data.decode import Indices
from photoz.data.image_set import DecodedImages
from photoz.data.layout import context_of
from photoz.data.resident import ResidentImages
from photoz.model.network import Batch
from photoz.train.sample import Labelled

LabelledBatch = tuple[Batch, torch.Tensor]  # with redshifts (b,), on the device


class Pixels:
    """A split's galaxies: their images stay on the device where they are resident, else each batch is copied there.

    `context` names the numbers that the network takes beside images (Network.context).
    """

    def __init__(self, labelled: Labelled, device: torch.device, context: Sequence[str]) -> None:
        self._images, self._device = labelled.images, device
        self.z_spec_b = torch.from_numpy(labelled.z_spec.astype(np.float32)).to(device)
        self._context_bk = torch.from_numpy(context_of(labelled.images.table, context)).to(device)
        self._measured_bf = self._context_bk.new_empty(len(self), 0)

    def __len__(self) -> int:
        return len(self.z_spec_b)

    def measured(self, measured_bf: torch.Tensor) -> "Pixels":
        """The same galaxies, with Network.measure's numbers of all of them in each batch."""
        known = copy(self)
        known._measured_bf = measured_bf
        return known

    def take(self, indices: Indices) -> LabelledBatch:
        """The galaxies at `indices`."""
        return next(iter(self.batches([indices])))

    def batches(self, parts: Iterable[Indices]) -> Iterator[LabelledBatch]:
        """The galaxies of each part, in order; a batch stays valid for two iterations."""
        if isinstance(self._images, ResidentImages):
            for part in parts:
                numbers = numbers_on(self._device, part)
                yield self._with_the_rest(self._images.take_bchw(numbers), numbers)
            return
        asked, wanted = tee(parts)
        on_gpu = self._device.type == "cuda"
        made: Iterable[NDArray[np.generic] | torch.Tensor] = (
            picked(self._images, wanted)
            if on_gpu and isinstance(self._images, DecodedImages)
            else self._images.batches(wanted)
        )
        for part, images_bchw in zip(asked, on_device(made, self._device), strict=True):
            yield self._with_the_rest(images_bchw, numbers_on(self._device, part))

    def _with_the_rest(self, images_bchw: torch.Tensor, numbers: torch.Tensor) -> LabelledBatch:
        batch = Batch(images_bchw, self._context_bk[numbers], self._measured_bf[numbers])
        return batch, self.z_spec_b[numbers]
