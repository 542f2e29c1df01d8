"""Several processes that train one network: gloo on CPUs, NCCL on CUDA devices."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from photoz import runtime
from photoz.errors import Preempted

_TIMEOUT = timedelta(minutes=20)  # the others wait this long while rank 0 validates and writes


@contextmanager
def joined(world: runtime.World, device: torch.device) -> Iterator[None]:
    """Join the other ranks while the block runs; nothing to do for a world of one."""
    if world.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def spread(network: nn.Module, world: runtime.World, device: torch.device) -> nn.Module:
    """The network with gradients averaged over ranks; rank 0's first weights are everyone's.

    On CUDA, batch norms take their statistics over all ranks; on CPUs each rank takes its own, and rank 0's are kept.
    """
    if world.size == 1:
        return network
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(network, device_ids=[device.index])
    return DistributedDataParallel(network)


def total(value: torch.Tensor, world: runtime.World) -> torch.Tensor:
    """Sum of a tensor over ranks."""
    if world.size > 1:
        dist.all_reduce(value)
    return value


def any_rank(said: Sequence[bool], world: runtime.World, device: torch.device) -> list[bool]:
    """For each question, whether any rank says yes: a rank that left alone would keep the others waiting."""
    if world.size == 1:
        return list(said)
    return [count > 0 for count in total(torch.tensor(said, dtype=torch.float32, device=device), world).tolist()]


def wait_for_all(world: runtime.World) -> None:
    """Return once every rank has come here."""
    if world.size > 1:
        dist.barrier()


def stop_now() -> None:
    """Raise Preempted on every rank, the signalled one or not."""
    runtime.check_stop()
    raise Preempted("another rank was asked to stop; the checkpoint is saved: run the same command to go on")
