"""What ranks exchange in a step: the mean of their gradients, and what they tell one another."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from photoz.runtime import World
from photoz.train.distributed import totals


class Told(NamedTuple):
    """What a rank has seen since the last look, or the sum of what all ranks have."""

    stop: float = 0.0  # ranks that are asked to stop
    failed: float = 0.0  # ranks with a loss that is not finite
    save: float = 0.0  # ranks that want a checkpoint
    loss_sum: float = 0.0  # over galaxies
    galaxies: float = 0.0


def average_gradients(
    parameters: Sequence[nn.Parameter], told: Told | None, world: World, device: torch.device
) -> Told | None:
    """Give every rank the mean of all ranks' gradients, and the sum of what they tell, if they do in this step.

    On CPUs one gloo message holds both. DistributedDataParallel is not used there: it packs gradients anew after its
    first step. With three ranks or more their sums would then round differently, and a resumed run would not be the
    unbroken one bit for bit. On CUDA it has averaged the gradients during the backward pass.
    """
    if world.size == 1 or device.type == "cuda":
        return Told(*totals(told, world, device)) if told else None
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    parts = [gradient.reshape(-1) for gradient in gradients]
    together = torch.cat([*parts, torch.tensor(told or (), dtype=torch.float32)])
    dist.all_reduce(together)
    *sums, last = torch.split(together, [*map(len, parts), len(told or ())])
    for gradient, found in zip(gradients, sums, strict=True):
        torch.div(found.view_as(gradient), world.size, out=gradient)
    return Told(*last.tolist()) if told else None
