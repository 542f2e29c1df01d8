"""The mean of all ranks' gradients on CPUs. On CUDA DistributedDataParallel sees to it."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import nn

from photoz.runtime import World
from photoz.train.distributed import from_first, say_why, totals
from photoz.train.shared_sum import SharedSum, new_file, open_file

log = logging.getLogger("photoz.train")

_CPU = torch.device("cpu")
_MOST_VALUES = 8  # that ranks tell one another in a step, beside gradients

# Gives every rank the mean of all ranks' gradients, where `spread` does not see to it, and returns totals(values).
Average = Callable[[Sequence[float]], list[float]]


@contextmanager
def averaging(network: nn.Module, world: World, device: torch.device, timeout_s: float) -> Iterator[Average]:
    """How the ranks average their gradients while the block runs, once a step.

    On CPUs gradients and values go together, and ranks wait for one another in that alone: through shared memory where
    all are on one machine, else through gloo. Not with DistributedDataParallel there, which packs gradients anew after
    its first step: with three ranks or more their sums would then round otherwise, and a resumed run would not be the
    unbroken one bit for bit.
    """
    if world.size == 1 or device.type == "cuda":
        yield lambda values: totals(values, world, device) if values else []
        return
    parameters = list(network.parameters())
    numbers = sum(parameter.numel() for parameter in parameters) + _MOST_VALUES
    with _shared_sum(numbers, world, timeout_s) as shared:
        yield _through_memory(parameters, world, shared) if shared else _through_gloo(parameters, world)


def _through_gloo(parameters: list[nn.Parameter], world: World) -> Average:
    def average(values: Sequence[float]) -> list[float]:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        parts = [gradient.reshape(-1) for gradient in gradients]
        together = torch.cat([*parts, torch.tensor(values, dtype=torch.float32)])
        dist.all_reduce(together)
        *sums, last = torch.split(together, [*map(len, parts), len(values)])
        for gradient, found in zip(gradients, sums, strict=True):
            torch.div(found.view_as(gradient), world.size, out=gradient)
        summed: list[float] = last.tolist()
        return summed

    return average


def _through_memory(parameters: list[nn.Parameter], world: World, shared: SharedSum) -> Average:
    means = torch.empty(len(shared.mine) - _MOST_VALUES)  # of this rank alone: optimizers change gradients in place
    sent, received = _views(shared.mine, parameters), _views(means, parameters)

    def average(values: Sequence[float]) -> list[float]:
        for parameter, row in zip(parameters, sent, strict=True):
            if parameter.grad is not None:
                row.copy_(parameter.grad)
        end = len(means) + len(values)
        shared.mine[len(means) : end] = torch.tensor(values)
        found = shared.sum()
        torch.div(found[: len(means)], world.size, out=means)
        for parameter, mean in zip(parameters, received, strict=True):
            if parameter.grad is not None:
                parameter.grad = mean
        summed: list[float] = found[len(means) : end].tolist()
        return summed

    return average


def _views(flat: torch.Tensor, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Consecutive stretches of `flat`, each with a parameter's shape and order in memory."""
    starts = accumulate((parameter.numel() for parameter in parameters), initial=0)
    return [flat[start:].as_strided(p.shape, p.stride()) for start, p in zip(starts, parameters, strict=False)]


@contextmanager
def _shared_sum(numbers: int, world: World, timeout_s: float) -> Iterator[SharedSum | None]:
    """Shared memory for sums while the block runs; None on all ranks where one of them can't open it."""
    with ExitStack() as held:
        made = new_file(numbers, world) if world.rank == 0 else None
        file, key = made or (None, None)
        key = from_first(key, world, _CPU)
        if key and file is None:
            file = open_file(key)
        shared = None
        if file is not None:
            held.callback(os.close, file)
            with suppress(OSError):
                shared = SharedSum(file, numbers, world, timeout_s)
        (without,) = totals([shared is None], world, _CPU)  # no rank goes on before all hold their locks
        log.info("ranks add up gradients through %s", "gloo" if without else "shared memory")
        if without or shared is None:
            yield None
            return
        try:
            yield shared
        except BaseException as error:
            say_why(error)  # before the others look for it
            shared.leave()
            raise
