"""The first layer of every network: stored pixels on the device -> stretched planes and approximately linear light.

Legend: b image, c channel, h row, w column.
"""

import torch
from torch import nn

from photoz.model.scaling import STRETCH_SOFTENING, InputScaling


class Light(nn.Module):
    """Images (b, c, h, w) as stored -> standardised stretched planes, and planes closer to linear flux.

    A colour JPEG shows flux times asinh(Q I) / (Q I), with I the mean over its channels (Lupton et al. 2004, PASP
    116, 133). SDSS's Q is about 8; other pictures are softer: `softenings` are the Q that are tried.
    """

    def __init__(self, scaling: InputScaling, softenings: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.softenings = softenings
        self.levels = scaling.dtype == "uint8"
        for name in ("sky", "noise", "mean", "std"):
            values_c11 = torch.tensor(getattr(scaling, name), dtype=torch.float32)[:, None, None]
            self.register_buffer(name, values_c11, persistent=False)
        self.sky: torch.Tensor
        self.noise: torch.Tensor
        self.mean: torch.Tensor
        self.std: torch.Tensor

    @property
    def planes(self) -> int:
        """How many linear planes there are for each channel."""
        return 1 + len(self.softenings) if self.levels else 1

    def stretched(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Standardised planes for convolutions, (b, c, h, w) float32, channels last."""
        return self.standardised(self.signal(images_bchw))

    def standardised(self, signal_bchw: torch.Tensor) -> torch.Tensor:
        """The same, from a signal that is there already."""
        if not self.levels:
            signal_bchw = _asinh(signal_bchw / STRETCH_SOFTENING)
        standard_bchw = torch.addcmul(-self.mean / self.std, signal_bchw, 1 / self.std)
        return standard_bchw.contiguous(memory_format=torch.channels_last)

    def signal(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Levels from 0 to 1, or flux in units of the pixel noise, plane by plane in memory.

        A masked pixel (NaN) counts as sky.
        """
        planes_bchw = images_bchw.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        if self.levels:  # their sky is 0
            return planes_bchw.div_(self.noise)
        return planes_bchw.sub_(self.sky).div_(self.noise).nan_to_num_(0.0, 0.0, 0.0)

    def linear(self, signal_bchw: torch.Tensor) -> list[torch.Tensor]:
        """The signal itself and, for 8-bit pictures, the signal with an asinh stretch undone."""
        if not self.levels:
            return [signal_bchw]
        intensity_b1hw = signal_bchw.mean(1, keepdim=True)
        return [signal_bchw] + [signal_bchw * _unstretch(intensity_b1hw, q) for q in self.softenings]


def _asinh(x: torch.Tensor) -> torch.Tensor:
    """asinh to float32's precision, for numbers up to 1e18."""
    if x.is_cuda:
        return torch.asinh(x)
    # On a CPU torch takes its own one number at a time; these go eight or more at once, in less than half the time.
    size = x.abs().clamp_max_(1e18)
    root = size.square().add_(1.0).sqrt_()
    return size.div(root.add_(1.0)).mul_(size).add_(size).log1p_().copysign_(x)


def _unstretch(shown: torch.Tensor, softening: float) -> torch.Tensor:
    """True over shown intensity: sinh(Q s) / (Q s), 1 where nothing is shown."""
    argument = (softening * shown).clamp_min_(0.01)  # below, it is 1 to 2e-5
    grown = argument.exp()  # with torch.sinh it takes twice as long
    return torch.sub(grown, grown.reciprocal()).div_(argument.mul_(2.0))
