"""Several processes that train one network: they meet through gloo on CPUs, NCCL on CUDA devices."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import Store
from torch.nn.parallel import DistributedDataParallel

from photoz import runtime
from photoz.errors import ExitCode, PhotozError, Preempted, TryAgain

log = logging.getLogger("photoz.ranks")

SAY_EVERY_S = 60.0
_SHELL_HINT = (
    "; in a shell of `srun --pty` no other rank starts by itself: run `srun --overlap photoz-job train`, "
    "or `env -u SLURM_STEP_NUM_TASKS photoz-job train` to train with one process"
)
_WHY = "photoz/why"  # in the ranks' common store: exit code of a rank that failed by itself
_KNOWN = "photoz/known"  # there, too: how many ranks have written or read it
_KNOWN_WITHIN_S = 5.0


@contextmanager
def joined(world: runtime.World, device: torch.device, timeout_s: float) -> Iterator[None]:
    """Join the other ranks while the block runs; nothing to do for a world of one.

    Raises TryAgain where another rank has gone or says nothing for `timeout_s`; if it had a reason to leave, a
    PhotozError of that reason's exit code.
    """
    if world.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        with _told_while_waiting(world, timeout_s):
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                init_method=runtime.meeting_point(),
                rank=world.rank,
                world_size=world.size,
                timeout=timedelta(seconds=timeout_s),
            )
        yield
    except BaseException as error:
        _say_why(error)
        if not _is_lost_rank(error):
            raise
        # A rank that was asked to stop may find that another one has already gone: a collective fails then.
        runtime.check_stop()
        raise _failure_of_another(error) from error
    finally:
        if dist.is_initialized():
            _leave(world)


@contextmanager
def _told_while_waiting(world: runtime.World, timeout_s: float) -> Iterator[None]:
    """Say at once whom this rank waits for, and again every minute while the block runs."""
    who = f"rank {world.rank} of {world.size} ({runtime.rank_variables()})"
    others = f"{world.size - 1} other{'s' if world.size > 2 else ''} at {runtime.meeting_place()}"
    hint = _SHELL_HINT if runtime.in_slurm_shell() else ""
    log.info("%s waits for %s, %.0f s at most%s", who, others, timeout_s, hint)
    started, met = time.monotonic(), threading.Event()

    def say_again() -> None:
        while not met.wait(SAY_EVERY_S):
            log.info("%s has waited %.0f s for %s%s", who, time.monotonic() - started, others, hint)

    threading.Thread(target=say_again, daemon=True, name="waiting").start()
    try:
        with runtime.interrupted_at_once():
            yield
    finally:
        met.set()


def _is_lost_rank(error: BaseException) -> bool:
    # NCCL and the store have errors of their own; gloo's are known by the file that they name.
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _say_why(error: BaseException) -> None:
    """Leave the exit code of a failure of this rank for the others, whose collectives are about to fail."""
    if _is_lost_rank(error):
        return
    code = error.exit_code if isinstance(error, PhotozError) else ExitCode.BUG
    if dist.is_initialized():
        with suppress(RuntimeError):  # whoever kept the store may be gone
            _common_store().set(_WHY, str(int(code)))
            _common_store().add(_KNOWN, 1)


def _failure_of_another(error: BaseException) -> PhotozError:
    reason = " ".join(str(error).split())
    silent = "timed out" in reason.lower()
    with suppress(RuntimeError):
        # Not after a silence: the host that keeps the store may be the one that is cut off.
        if not silent and dist.is_initialized() and _common_store().check([_WHY]):
            code = ExitCode(int(_common_store().get(_WHY)))
            _common_store().add(_KNOWN, 1)
            failure = {kind.exit_code: kind for kind in PhotozError.__subclasses__()}.get(code, PhotozError)
            return failure(f"another rank ended with exit code {int(code)}; its own message says why")
    what = "another rank says nothing any more" if silent else "another rank is gone"
    return TryAgain(f"{what} ({reason[:200]}); run the same command to go on from the last checkpoint")


def _leave(world: runtime.World) -> None:
    """Leave the group. After a failure rank 0, which may keep the store, stays until the others know the reason."""
    store = _common_store()
    dist.destroy_process_group()  # so that the others' collectives fail
    until = time.monotonic() + _KNOWN_WITHIN_S
    with suppress(RuntimeError):
        while world.rank == 0 and store.check([_WHY]) and store.add(_KNOWN, 0) < world.size:
            if time.monotonic() > until:
                return
            time.sleep(0.02)


def _common_store() -> Store:
    store: Store = dist.distributed_c10d._get_default_store()
    return store


def spread(network: nn.Module, world: runtime.World, device: torch.device) -> nn.Module:
    """The network as each rank trains it; rank 0's first weights are everyone's.

    On CUDA gradients are averaged on the way and batch norms take their statistics over all ranks; on CPUs
    photoz.train.gradients does the first, each rank takes its own statistics, and rank 0's are kept.
    """
    if world.size == 1:
        return network
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(network, device_ids=[device.index])
    for value in network.state_dict().values():
        first = value.contiguous()
        dist.broadcast(first, 0)
        value.copy_(first)
    return network


def gradients_kept_here(network: nn.Module, here: bool) -> AbstractContextManager[None]:
    """While the block runs, DistributedDataParallel adds gradients up without sending them."""
    if here and isinstance(network, DistributedDataParallel):
        kept: AbstractContextManager[None] = network.no_sync()
        return kept
    return nullcontext()


def totals(values: Sequence[float], world: runtime.World, device: torch.device) -> list[float]:
    """Each number summed over ranks, the same on all of them."""
    if world.size == 1:
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    found: list[float] = summed.tolist()
    return found


def added_up(values: torch.Tensor, world: runtime.World) -> torch.Tensor:
    """A tensor summed over ranks, in its place."""
    if world.size > 1:
        dist.all_reduce(values)
    return values


def from_first(data: bytes | None, world: runtime.World, device: torch.device) -> bytes | None:
    """Rank 0's bytes on every rank: what it has found, on its own disk perhaps, is what all go by."""
    if world.size == 1:
        return data
    (size,) = totals([len(data or b"") if world.rank == 0 else 0], world, device)
    if not size:
        return None
    mine = data if world.rank == 0 and data else bytes(int(size))
    shared = torch.frombuffer(bytearray(mine), dtype=torch.uint8).to(device)
    dist.broadcast(shared, 0)
    return shared.cpu().numpy().tobytes()


def wait_for_all(world: runtime.World) -> None:
    """Return once every rank has come here."""
    if world.size > 1:
        dist.barrier()


def check_stop(world: runtime.World, device: torch.device) -> None:
    """Raise Preempted on every rank if any of them was asked to stop: one that left alone would keep others waiting."""
    (stops,) = totals([runtime.stop_requested()], world, device)
    if stops:
        stop_now()


def stop_now() -> NoReturn:
    """Raise Preempted on every rank, the signalled one or not."""
    runtime.check_stop()
    raise Preempted("another rank was asked to stop; what was saved is kept: run the same command to go on")
