"""The first layer of every network: stored pixels on the device -> stretched planes and approximately linear light.

Legend: b image, c channel, h row, w column.
"""

import torch
from torch import nn

from photoz.model.scaling import STRETCH_SOFTENING, InputScaling

_MOST_SIGNAL = 1e18  # times the noise: float32 can square it; no galaxy is as bright
_CACHED_VALUES = 2**17  # so many at once for each thread stay in a core's cache from one operation to the next


class Light(nn.Module):
    """Images (b, c, h, w) as stored -> standardised stretched planes, and planes closer to linear flux.

    A colour JPEG shows flux times asinh(Q I) / (Q I), with I the mean over its channels (Lupton et al. 2004, PASP
    116, 133). A usual Q is 8; other pictures are softer: `softenings` are the Q that are tried.
    """

    def __init__(self, scaling: InputScaling, softenings: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.softenings = softenings
        self.levels = scaling.dtype == "uint8"
        units = scaling.noise if self.levels else (1.0,) * scaling.channels  # fluxes are in them before the stretch
        buffers = {
            "sky_c11": [[[sky]] for sky in scaling.sky],
            "noise_c11": [[[noise]] for noise in scaling.noise],
            "per_unit_c": [1.0 / (std * unit) for std, unit in zip(scaling.std, units, strict=True)],
            "offset_c": [-mean / std for mean, std in zip(scaling.mean, scaling.std, strict=True)],
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.sky_c11: torch.Tensor
        self.noise_c11: torch.Tensor
        self.per_unit_c: torch.Tensor
        self.offset_c: torch.Tensor

    @property
    def planes(self) -> int:
        """How many linear planes there are for each channel."""
        return 1 + len(self.softenings) if self.levels else 1

    def stretched(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Standardised planes for convolutions, (b, c, h, w) float32, channels last."""
        standard_bchw = torch.empty(
            images_bchw.shape, dtype=torch.float32, device=images_bchw.device, memory_format=torch.channels_last
        )
        width = images_bchw.shape[3]
        offset, per_unit = self.offset_c.repeat(width), self.per_unit_c.repeat(width)
        parts = 1 if images_bchw.is_cuda else 1 + images_bchw.numel() // (_CACHED_VALUES * torch.get_num_threads())
        for part_bchw, into_bchw in zip(images_bchw.chunk(parts), standard_bchw.chunk(parts), strict=True):
            if not self.levels:
                part_bchw = _asinh(self.signal(part_bchw).div_(STRETCH_SOFTENING))
            stored = _rows(_laid_out(part_bchw, torch.channels_last))
            torch.addcmul(offset, stored.float(), per_unit, out=_rows(into_bchw))
        return standard_bchw

    def signal(self, images_bchw: torch.Tensor) -> torch.Tensor:
        """Levels from 0 to 1, or flux in units of the pixel noise, plane by plane in memory.

        A masked pixel (NaN or infinite) counts as sky; numbers beyond 1e18 times the noise as that.
        """
        planes_bchw = _laid_out(images_bchw, torch.contiguous_format).to(torch.float32, copy=True)
        if self.levels:  # their sky is 0
            return planes_bchw.div_(self.noise_c11)
        planes_bchw.sub_(self.sky_c11).nan_to_num_(0.0, 0.0, 0.0)
        return planes_bchw.div_(self.noise_c11).clamp_(-_MOST_SIGNAL, _MOST_SIGNAL)

    def linear(self, signal_bchw: torch.Tensor) -> list[torch.Tensor]:
        """The signal itself and, for 8-bit pictures, the signal with an asinh stretch undone."""
        if not self.levels:
            return [signal_bchw]
        intensity_b1hw = signal_bchw.mean(1, keepdim=True)
        return [signal_bchw] + [signal_bchw * _unstretch(intensity_b1hw, q) for q in self.softenings]


def _laid_out(images_bchw: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
    """The images plane by plane in memory, or with their channels last."""
    if images_bchw.is_cuda or images_bchw.is_contiguous(memory_format=layout):
        return images_bchw.contiguous(memory_format=layout)
    # On a CPU a channel at a time takes a quarter to half of the time of torch's own way.
    copied_bchw = torch.empty_like(images_bchw, memory_format=layout)
    for into, channel in zip(copied_bchw.unbind(1), images_bchw.unbind(1), strict=True):
        into.copy_(channel)
    return copied_bchw


def _rows(channels_last_bchw: torch.Tensor) -> torch.Tensor:
    """A view with a row of the image in each row, (b h, w c): long enough for a CPU's vectors, as c is not."""
    return channels_last_bchw.permute(0, 2, 3, 1).flatten(0, 1).flatten(1)


def _asinh(x: torch.Tensor) -> torch.Tensor:
    """asinh to float32's precision, for numbers up to _MOST_SIGNAL."""
    if x.is_cuda:
        return torch.asinh(x)
    # On a CPU torch takes its own one number at a time; these go eight or more at once, in less than half the time.
    size = x.abs()
    root = size.square().add_(1.0).sqrt_()
    return size.div(root.add_(1.0)).mul_(size).add_(size).log1p_().copysign_(x)


def _unstretch(shown: torch.Tensor, softening: float) -> torch.Tensor:
    """True over shown intensity: sinh(Q s) / (Q s), 1 where nothing is shown."""
    argument = (softening * shown).clamp_min_(0.01)  # below, it is 1 to 2e-5
    grown = argument.exp()  # with torch.sinh it takes twice as long
    return torch.sub(grown, grown.reciprocal()).div_(argument.mul_(2.0))
