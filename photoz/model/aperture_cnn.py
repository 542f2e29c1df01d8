"""The default network: aperture photometry, Galactic reddening and a small convolutional trunk, and a PDF head.

Most of what an image says about redshift is the central galaxy's flux in each band: a photometrist's colours and
magnitudes. A pooled convolutional network has to learn that from scratch; here it is given, and the trunk adds
what photometry misses (shape, neighbours, seeing). Images show galaxies reddened by the dust of the Milky Way, so the
head is told E(B-V), too, as in Pasquet et al. 2019 (A&A 621, A26). See docs/design/network.md for what was measured.

Legend: b image, c channel, h row, w column, k aperture, p pixel, f feature, m member, z redshift bin.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from photoz.model.light import Light
from photoz.model.network import Batch, Network
from photoz.model.scaling import InputScaling


@dataclass(frozen=True)
class ApertureShape:
    """Sizes of the network, all kept in model.json. `radii_px` are the apertures' standard deviations."""

    height: int
    width: int
    bins: int
    members: int
    dropout: float
    radii_px: tuple[float, ...]
    stride: int  # of the trunk's first convolution
    softenings: tuple[float, ...] = (4.0, 8.0)
    widths: tuple[int, ...] = (16, 32, 64)
    hidden: int = 128
    reddening: bool = True  # whether the head is told E(B-V)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "ApertureShape":
        """Read it back from model.json, which has lists for tuples."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in found.items()
        }
        if "stride" not in plain:  # as models had it before they kept it
            smaller = min(plain["height"], plain["width"])
            plain["stride"] = 1 if smaller < 48 else 2 if smaller < 112 else 4
        plain.setdefault("reddening", False)  # models of before were not told it
        return cls(**plain)


def stem_stride(height: int, width: int) -> int:
    """One that leaves the trunk of a 64x64 image 16 pixels a side: with 32 it takes twice as long and is no better."""
    smaller = min(height, width)
    return 1 if smaller < 48 else 2 if smaller < 64 else 4


def aperture_radii(height: int, width: int, count: int = 6) -> tuple[float, ...]:
    """Radii (pixels) from one pixel to a fifth of the image, evenly in the logarithm."""
    largest = max(min(height, width) / 5, 2.0)
    return tuple(largest ** (index / (count - 1)) for index in range(count))


class AperturePhotometry(nn.Module):
    """Magnitudes, colours and growth curves of the central object in round Gaussian apertures, (b, f)."""

    FAINTEST = 3e-3  # flux below which asinh magnitudes go linear: about one level of 255

    def __init__(self, channels: int, shape: ApertureShape, light: Light) -> None:
        super().__init__()
        apertures = len(shape.radii_px)

        def gaussian_weights_kp() -> torch.Tensor:
            radii_k1 = torch.tensor(shape.radii_px)[:, None]
            weights_kp = torch.exp(-0.5 * _radius_squared(shape.height, shape.width).flatten() / radii_k1**2)
            return weights_kp / weights_kp.sum(1, keepdim=True)

        weights_kp = _computed((apertures, shape.height * shape.width), gaussian_weights_kp)
        self.register_buffer("weights_kp", weights_kp, persistent=False)
        self.weights_kp: torch.Tensor
        self.faintest = self.FAINTEST if light.levels else 0.3
        per_plane = channels * apertures + (channels - 1) * apertures + channels * (apertures - 1)
        self.features = light.planes * per_plane
        self.register_buffer("mean_f", torch.zeros(self.features))
        self.register_buffer("std_f", torch.ones(self.features))
        self.mean_f: torch.Tensor
        self.std_f: torch.Tensor

    def unscaled(self, planes: list[torch.Tensor]) -> torch.Tensor:
        """Features before they are standardised, (b, f)."""
        found = []
        for plane_bchw in planes:
            # With few apertures, in this order a CPU's matrix product takes half the time.
            flux_kx = self.weights_kp @ plane_bchw.flatten(2).flatten(0, 1).T
            flux_bck = flux_kx.view(len(flux_kx), *plane_bchw.shape[:2]).permute(1, 2, 0).contiguous()
            magnitude_bck = torch.asinh(flux_bck / self.faintest)
            colour = magnitude_bck[:, 1:] - magnitude_bck[:, :-1]
            growth = magnitude_bck[:, :, 1:] - magnitude_bck[:, :, :-1]
            found += [magnitude_bck.flatten(1), colour.flatten(1), growth.flatten(1)]
        return torch.cat(found, 1)

    def standardise_by(self, planes: list[torch.Tensor]) -> None:
        """Take mean and scatter of each feature from training images."""
        found_bf = self.unscaled(planes)
        self.mean_f.copy_(found_bf.mean(0))
        self.std_f.copy_(found_bf.std(0) + 1e-3)

    def forward(self, planes: list[torch.Tensor]) -> torch.Tensor:
        # Clamped: an image unlike all in training must not reach the head as a huge number.
        standard_bf: torch.Tensor = (self.unscaled(planes) - self.mean_f) / self.std_f
        return torch.clamp(standard_bf, -6.0, 6.0)


class Reddening(nn.Module):
    """E(B-V) in units of its scatter among training galaxies, (b, 1); 0, as for their mean, where it is unknown.

    It is always 0 where training galaxies had none, or all the same.
    """

    LEAST_SCATTER = 1e-4  # mag

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("per_mag", torch.zeros(()))
        self.mean: torch.Tensor
        self.per_mag: torch.Tensor

    def standardise_by(self, ebv_b: torch.Tensor) -> None:
        """Take mean and scatter from training galaxies."""
        known = ebv_b[ebv_b.isfinite()]
        if len(known) > 1 and known.std() > self.LEAST_SCATTER:
            self.mean.copy_(known.mean())
            self.per_mag.copy_(1.0 / known.std())

    def forward(self, ebv_b: torch.Tensor) -> torch.Tensor:
        standard_b = ((ebv_b - self.mean) * self.per_mag).nan_to_num(0.0)
        return torch.clamp(standard_b, -6.0, 6.0)[:, None]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, halving the image. No normalisation: per-image norms would erase brightness, and
    batch norms differ between ranks and between weights and their average."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(into, out, 3, stride=2, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(into, out, 1)
        self.gain = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(functional.relu(self.first(functional.relu(x))))
        return torch.add(self.skip(functional.avg_pool2d(x, 2, ceil_mode=True)), self.gain * y)


class Trunk(nn.Module):
    """Residual blocks on the stretched image; pooled over all of it and over its centre."""

    def __init__(self, channels: int, shape: ApertureShape) -> None:
        super().__init__()
        kernel = max(5, 2 * shape.stride - 1)
        self.stem = nn.Conv2d(channels, shape.widths[0], kernel, shape.stride, kernel // 2)
        into = (shape.widths[0], *shape.widths[:-1])
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in zip(into, shape.widths, strict=True)))
        height, width = (_halved(-(-side // shape.stride), len(shape.widths)) for side in (shape.height, shape.width))

        def gaussian_centre_p() -> torch.Tensor:
            centre_p = torch.exp(-0.5 * _radius_squared(height, width).flatten() / (0.15 * min(height, width)) ** 2)
            return centre_p / centre_p.sum()

        self.register_buffer("centre_p", _computed((height * width,), gaussian_centre_p), persistent=False)
        self.centre_p: torch.Tensor
        self.features = 2 * shape.widths[-1]

    def forward(self, stretched_bchw: torch.Tensor) -> torch.Tensor:
        x_bfp = functional.relu(self.blocks(self.stem(stretched_bchw))).flatten(2)
        return torch.cat([x_bfp.mean(2), x_bfp @ self.centre_p], 1)


class MemberLinear(nn.Module):
    """One linear layer for each member of an ensemble, (m, b, f) -> (m, b, g)."""

    def __init__(self, members: int, into: int, out: int, gain: float) -> None:
        super().__init__()
        size = (members, into, out)
        self.weight = nn.Parameter(_computed(size, lambda: torch.randn(size) * math.sqrt(gain / into)))
        self.bias = nn.Parameter(torch.zeros(members, 1, out))

    def forward(self, x_mbf: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, x_mbf, self.weight)


class ApertureCNN(Network):
    """Images (b, c, h, w) as stored, and E(B-V) -> logits (m, b, z), one set a member."""

    def __init__(self, scaling: InputScaling, shape: ApertureShape) -> None:
        super().__init__()
        self.light = Light(scaling, shape.softenings)
        self.photometry = AperturePhotometry(scaling.channels, shape, self.light)
        self.trunk = Trunk(scaling.channels, shape)
        self.context = ("ebv",) if shape.reddening else ()
        self.reddening = Reddening() if shape.reddening else None
        self.members = shape.members
        into = self.photometry.features + self.trunk.features + len(self.context)
        self.hidden = nn.Sequential(
            nn.Dropout(shape.dropout),
            MemberLinear(shape.members, into, shape.hidden, 1.6),
            nn.GELU(),
            nn.Dropout(shape.dropout),
            MemberLinear(shape.members, shape.hidden, shape.hidden, 1.6),
            nn.GELU(),
        )
        self.head = nn.Sequential(nn.Dropout(shape.dropout), MemberLinear(shape.members, shape.hidden, shape.bins, 0.0))

    @property
    def used_context(self) -> tuple[str, ...]:
        """No E(B-V) where it was unknown, or the same, for all training galaxies."""
        return self.context if self.reddening is not None and self.reddening.per_mag else ()

    def prepare(self, batch: Batch) -> None:
        """Take the scale of each photometric feature, and of E(B-V), from training galaxies, before training starts."""
        with torch.no_grad():
            self.photometry.standardise_by(self.light.linear(self.light.signal(batch.images_bchw)))
            if self.reddening is not None:
                self.reddening.standardise_by(batch.context_bk[:, 0])

    @property
    def measurements(self) -> int:
        """The photometry's features."""
        return self.photometry.features

    @torch.no_grad()
    def measure(self, batch: Batch) -> Batch:
        """With photometry in round apertures: it is the same in all orientations."""
        if batch.measured_bf.shape[1]:
            return batch
        with torch.autocast(batch.images_bchw.device.type, enabled=False):  # magnitudes need more than 8 bits
            signal_bchw = self.light.signal(batch.images_bchw)
            return batch._replace(measured_bf=self.photometry(self.light.linear(signal_bchw)))

    def features(self, batch: Batch) -> torch.Tensor:
        """What the members see, (b, f): photometry, the trunk's pooled planes, then E(B-V)."""
        found = [self.measure(batch).measured_bf, self.trunk(self.light.stretched(batch.images_bchw))]
        if self.reddening is not None:
            found.append(self.reddening(batch.context_bk[:, 0]))
        return torch.cat(found, 1)

    def answer(self, features_bf: torch.Tensor) -> torch.Tensor:
        """Logits (m, b, z) from features."""
        logits_mbz: torch.Tensor = self.head(self.hidden(features_bf.expand(self.members, *features_bf.shape)))
        return logits_mbz


def _computed(size: tuple[int, ...], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `compute` gives; on the meta device, where there are sizes only, nothing of this size.

    Arithmetic there would import torch's compiler, which takes a second.
    """
    return torch.empty(size) if torch.get_default_device().type == "meta" else compute()


def _radius_squared(height: int, width: int) -> torch.Tensor:
    """Squared distance of each pixel from the image's centre, (h, w)."""
    y, x = (torch.arange(side) - (side - 1) / 2 for side in (height, width))
    return y[:, None] ** 2 + x[None] ** 2


def _halved(side: int, times: int) -> int:
    for _ in range(times):
        side = -(-side // 2)
    return side
