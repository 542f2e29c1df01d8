"""The network of the student project that this one grew from, kept for comparison.

Legend: b image, c channel, h row, w column, f feature.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from photoz.model.light import Light
from photoz.model.network import Batch, Network
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
    counted as Keras does, with the batch norms' moving statistics.

    The convolutions' biases are among them, and stay at the 0 that Keras gives them: a batch norm takes out whatever
    they add. Maxima are taken before the ReLU, which comes to the same on a quarter of the pixels.
    """

    bfloat16_on_cpu = True

    def __init__(self, scaling: InputScaling) -> None:
        super().__init__()
        self.light = Light(scaling)
        layers: list[nn.Module] = []
        into = scaling.channels
        for number, block in enumerate(BLOCKS):
            for out, kernel in block:
                convolution = nn.Conv2d(into, out, kernel, padding=kernel // 2)
                convolution.bias = nn.Parameter(torch.zeros(out), requires_grad=False)
                layers += [convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                into = out
            if number < len(BLOCKS) - 1:
                layers.insert(-1, nn.MaxPool2d(2))
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(into, 1)

    def features(self, batch: Batch) -> torch.Tensor:
        """What the dense layer sees, (b, f)."""
        x = self.light.stretched(batch.images_bchw)
        layers = iter(self.convolutions)
        for layer in layers:
            x = _normalised(x, layer, next(layers)) if isinstance(layer, nn.Conv2d) else layer(x)
        pooled_bf: torch.Tensor = x.float().mean((2, 3))
        return pooled_bf

    def answer(self, features_bf: torch.Tensor) -> torch.Tensor:
        """Redshifts (b,) from features."""
        redshift_b: torch.Tensor = self.dense(features_bf)[:, 0]
        return redshift_b


def _normalised(x: torch.Tensor, convolution: nn.Conv2d, norm: nn.Module) -> torch.Tensor:
    """Both layers' result; where the statistics are known in one pass over the pixels, and without gradients."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    padding = convolution.padding
    if norm.training:
        y: torch.Tensor = norm(functional.conv2d(x, convolution.weight, padding=padding))
        return y
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return functional.conv2d(x, weight, bias, padding=padding)
