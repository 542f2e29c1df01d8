"""What every network has in common. Legend: b image, c channel, h row, w column, f feature, m member, z bin."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn


class Network(nn.Module, ABC):
    """What the training loop and inference ask of a network."""

    # For those that were seen to gain by it: bfloat16 where a CPU has it, and training steps recorded as CUDA graphs.
    bfloat16_on_cpu: ClassVar[bool] = False
    recorded_on_gpu: ClassVar[bool] = False

    @abstractmethod
    def features(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """(b, f) from images as stored: what the head sees, by which unfamiliar images are told."""

    @abstractmethod
    def answer(self, features_bf: torch.Tensor) -> torch.Tensor:
        """Logits (m, b, z) of a binned head with m members, or redshifts (b,) of a regression."""

    def prepare(self, images_bchw: torch.Tensor) -> None:
        """Measure what it needs on training images, once, before training; nothing for most."""

    def answer_float32(self, features_bf: torch.Tensor) -> torch.Tensor:
        """The head's answer, in float32 also where features come from bfloat16: a redshift needs more than 8 bits."""
        with torch.autocast(features_bf.device.type, enabled=False):
            return self.answer(features_bf.float())

    def forward(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Images (b, c, h, w) as stored -> the head's answer."""
        return self.answer_float32(self.features(images_bchw))
