"""The network on many galaxies, outside of training steps. All ranks agree before each batch whether to stop."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import numpy as np
import torch

from photoz import progress
from photoz.data.decode import Indices
from photoz.model.network import Network
from photoz.model.redshift_model import NetworkOutput, run_network
from photoz.runtime import World
from photoz.train import distributed
from photoz.train.pixels import Pixels

_BATCH = 512


def in_batches(count: int) -> list[Indices]:
    """The numbers 0 to `count` - 1 in order, up to 512 a batch."""
    return np.array_split(np.arange(count), range(_BATCH, count, _BATCH))


def measured(network: Network, split: str, pixels: Pixels, world: World, device: torch.device) -> Pixels:
    """A split's galaxies with Network.measure's numbers; each rank measures a part, all ranks get all numbers.

    Raises Preempted on all ranks if one is to stop.
    """
    if not network.measurements:
        return pixels
    parts = in_batches(len(pixels))
    mine = parts[world.rank :: world.size]

    def agreed() -> Iterator[Indices]:
        for part, _ in zip_longest(mine, parts[:: world.size]):
            distributed.check_stop(world, device)
            if part is not None:
                yield part

    measured_bf = torch.zeros(len(pixels), network.measurements, device=device)
    with progress.stage(f"measure {split}", total=sum(map(len, mine)), unit="galaxies") as bar:
        for (batch, _), part in zip(pixels.batches(agreed()), mine, strict=True):
            measured_bf[part[0] : part[-1] + 1] = network.measure(batch).measured_bf
            bar.advance(len(part))
    return pixels.measured(distributed.added_up(measured_bf, world))


def run_on_first(
    network: Network, pixels: Pixels, parts: Sequence[Indices], world: World, device: torch.device
) -> NetworkOutput | None:
    """Rank 0's output for these batches, None on the other ranks. Raises Preempted on all ranks if one is to stop.

    The other ranks take part in the check before each batch: one that waited at the next step could not report a stop.
    """

    def agreed() -> Iterator[Indices]:
        for part in parts:
            distributed.check_stop(world, device)
            yield part

    if world.rank == 0:
        return run_network(network, (batch for batch, _ in pixels.batches(agreed())))
    for _ in agreed():
        pass
    return None
