"""The network of the student project that this one grew from, kept for comparison.

Legend: b image, c channel, h row, w column, f feature.
"""

import torch
from torch import nn

from photoz.model.light import Light
from photoz.model.network import Network
from photoz.model.scaling import InputScaling

# (output channels, kernel) of each convolution; blocks are parted by 2x2 max pools.
BLOCKS = (
    ((32, 3), (32, 3)),
    ((64, 3), (64, 3)),
    ((128, 3), (64, 1), (128, 3)),
    ((256, 3), (128, 1), (256, 3)),
    ((512, 3), (256, 1), (512, 3)),
)


class Menko2024(Network):
    """Images (b, c, h, w) as stored -> redshift (b,). 3,346,657 parameters at 3 channels,
    counted as Keras does, with the batch norms' moving statistics."""

    bfloat16_on_cpu = True

    def __init__(self, scaling: InputScaling) -> None:
        super().__init__()
        self.light = Light(scaling)
        layers: list[nn.Module] = []
        into = scaling.channels
        for number, block in enumerate(BLOCKS):
            if number:
                layers.append(nn.MaxPool2d(2))
            for out, kernel in block:
                layers += [nn.Conv2d(into, out, kernel, padding=kernel // 2), nn.BatchNorm2d(out), nn.ReLU()]
                into = out
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(into, 1)

    def features(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """What the dense layer sees, (b, f)."""
        pooled_bf: torch.Tensor = self.convolutions(self.light.stretched(images_bchw)).float().mean((2, 3))
        return pooled_bf

    def answer(self, features_bf: torch.Tensor) -> torch.Tensor:
        """Redshifts (b,) from features."""
        redshift_b: torch.Tensor = self.dense(features_bf)[:, 0]
        return redshift_b
