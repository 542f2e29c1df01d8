"""What every network has in common.

Legend: b image, c channel, h row, w column, k context number, f feature, m member, z bin.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Self

import torch
from torch import nn


class Batch(NamedTuple):
    """Galaxies as a network takes them, on its device."""

    images_bchw: torch.Tensor  # as stored
    context_bk: torch.Tensor  # numbers beside the image, in the order of Network.context; NaN where unknown
    measured_bf: torch.Tensor  # on these images, by Network.measure; (b, 0) where it was not called

    @classmethod
    def of(cls, images_bchw: torch.Tensor, context_bk: torch.Tensor) -> Self:
        """Galaxies on whose images nothing was measured."""
        return cls(images_bchw, context_bk, context_bk.new_empty(len(context_bk), 0))

    @classmethod
    def without_context(cls, images_bchw: torch.Tensor, numbers: int = 1) -> Self:
        """Images of galaxies whose context numbers are unknown."""
        return cls.of(images_bchw, torch.full((len(images_bchw), numbers), torch.nan, device=images_bchw.device))


class Network(nn.Module, ABC):
    """What training and inference need of a network."""

    # For those that were seen to gain by it: bfloat16 where a CPU has it.
    bfloat16_on_cpu: ClassVar[bool] = False

    # Names of the numbers in Batch.context_bk, keys of photoz.data.layout.CONTEXT.
    context: tuple[str, ...] = ()

    @property
    def used_context(self) -> tuple[str, ...]:
        """Those of `context` that make a difference to its answers; a galaxy that lacks one is flagged."""
        return self.context

    @property
    def measurements(self) -> int:
        """How many numbers `measure` takes of a galaxy."""
        return 0

    def measure(self, batch: Batch) -> Batch:
        """The same galaxies, with `measured_bf`: what neither the image's orientation nor training changes.

        Training calls it once a galaxy; the result is valid for any orientation of the image and for averages of the
        network's weights.
        """
        return batch

    @abstractmethod
    def features(self, batch: Batch) -> torch.Tensor:
        """What the head sees, (b, f); the `ood_score` is a distance between these."""

    @abstractmethod
    def answer(self, features_bf: torch.Tensor) -> torch.Tensor:
        """Logits (m, b, z) of a binned head with m members, or redshifts (b,) of a regression."""

    def prepare(self, batch: Batch) -> None:
        """Measure what it needs on training galaxies, once, before training; nothing for most."""

    def answer_float32(self, features_bf: torch.Tensor) -> torch.Tensor:
        """The head's answer, in float32 also where features come from bfloat16: a redshift needs more than 8 bits."""
        with torch.autocast(features_bf.device.type, enabled=False):
            return self.answer(features_bf.float())

    def forward(self, images_bchw: torch.Tensor, context_bk: torch.Tensor, measured_bf: torch.Tensor) -> torch.Tensor:
        """The fields of Batch -> the head's answer."""
        return self.answer_float32(self.features(Batch(images_bchw, context_bk, measured_bf)))
