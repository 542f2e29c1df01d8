"""Batches of training galaxies on the device. Legend: b image, c channel, h row, w column."""

from collections.abc import Iterable, Iterator
from copy import copy
from itertools import tee

import numpy as np
import torch
from numpy.typing import NDArray

from photoz.data.batches import numbers_on, on_device, picked
from photoz.data.decode import Indices
from photoz.data.image_set import DecodedImages
from photoz.data.layout import reddening_of
from photoz.data.resident import ResidentImages
from photoz.model.network import Observed
from photoz.train.sample import Labelled

Batch = tuple[Observed, torch.Tensor]  # with redshifts (b,), on the device


class Pixels:
    """A split's galaxies: images there already where they are resident, else copied a batch at a time."""

    def __init__(self, labelled: Labelled, device: torch.device) -> None:
        self._images, self._device = labelled.images, device
        self.z_spec_b = torch.from_numpy(labelled.z_spec.astype(np.float32)).to(device)
        self._ebv_b = torch.from_numpy(reddening_of(labelled.images.table)).to(device)
        self._measured_bf = self._ebv_b.new_empty(len(self), 0)

    def __len__(self) -> int:
        return len(self.z_spec_b)

    def measured(self, measured_bf: torch.Tensor) -> "Pixels":
        """The same galaxies, handed out with what was measured on all of them."""
        known = copy(self)
        known._measured_bf = measured_bf
        return known

    def take(self, indices: Indices) -> Batch:
        """The galaxies at `indices`."""
        return next(iter(self.batches([indices])))

    def batches(self, parts: Iterable[Indices]) -> Iterator[Batch]:
        """The galaxies of each part, in order; a batch is good until the next but one."""
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

    def _with_the_rest(self, images_bchw: torch.Tensor, numbers: torch.Tensor) -> Batch:
        observed = Observed(images_bchw, self._ebv_b[numbers], self._measured_bf[numbers])
        return observed, self.z_spec_b[numbers]
