"""What every network has in common. Legend: b image, c channel, h row, w column, f feature, m member, z bin."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Self

import torch
from torch import nn


class Observed(NamedTuple):
    """What a network is given of some galaxies, on its device."""

    images_bchw: torch.Tensor  # as stored
    ebv_b: torch.Tensor  # Galactic reddening E(B-V), mag; NaN where unknown
    measured_bf: torch.Tensor  # on these images, by Network.measure; (b, 0) where it was not

    @classmethod
    def unmeasured(cls, images_bchw: torch.Tensor, ebv_b: torch.Tensor) -> Self:
        """Galaxies on whose images nothing was measured."""
        return cls(images_bchw, ebv_b, ebv_b.new_empty(len(ebv_b), 0))

    @classmethod
    def without_reddening(cls, images_bchw: torch.Tensor) -> Self:
        """Images of galaxies whose reddening nobody knows."""
        return cls.unmeasured(images_bchw, torch.full((len(images_bchw),), torch.nan, device=images_bchw.device))


class Network(nn.Module, ABC):
    """What the training loop and inference ask of a network."""

    # For those that were seen to gain by it: bfloat16 where a CPU has it.
    bfloat16_on_cpu: ClassVar[bool] = False

    @property
    def uses_reddening(self) -> bool:
        """Whether E(B-V) makes a difference to its answers."""
        return False

    @property
    def measurements(self) -> int:
        """How many numbers `measure` takes of a galaxy."""
        return 0

    def measure(self, observed: Observed) -> Observed:
        """The same galaxies, with what the network sees of their images that neither turning nor training changes.

        Measured once, it needs no measuring in any later pass over the same images, in whatever orientation, by this
        network or one with averages of its weights.
        """
        return observed

    @abstractmethod
    def features(self, observed: Observed) -> torch.Tensor:
        """What the head sees, (b, f), by which unfamiliar galaxies are told."""

    @abstractmethod
    def answer(self, features_bf: torch.Tensor) -> torch.Tensor:
        """Logits (m, b, z) of a binned head with m members, or redshifts (b,) of a regression."""

    def prepare(self, observed: Observed) -> None:
        """Measure what it needs on training galaxies, once, before training; nothing for most."""

    def answer_float32(self, features_bf: torch.Tensor) -> torch.Tensor:
        """The head's answer, in float32 also where features come from bfloat16: a redshift needs more than 8 bits."""
        with torch.autocast(features_bf.device.type, enabled=False):
            return self.answer(features_bf.float())

    def forward(self, images_bchw: torch.Tensor, ebv_b: torch.Tensor, measured_bf: torch.Tensor) -> torch.Tensor:
        """The fields of Observed -> the head's answer."""
        return self.answer_float32(self.features(Observed(images_bchw, ebv_b, measured_bf)))
