"""Which device a job runs on, and in which precision."""

import ctypes
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from photoz.errors import BadInput

DEVICES = ("auto", "cpu", "cuda")

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MOST = 2**31 - 1


def choose_device(asked: str, local_rank: int = 0) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. Raises BadInput where cuda is asked for and there is none."""
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise BadInput("--device cuda: no CUDA device is visible here; use --device cpu, or see photoz-job doctor")
    if local_rank >= torch.cuda.device_count():
        raise BadInput(f"local rank {local_rank}: only {torch.cuda.device_count()} CUDA devices; lower --nproc")
    return torch.device("cuda", local_rank)


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 on a CUDA device that has it, else float32: on most CPUs bfloat16 is 8 to 17 times slower."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def keep_freed_memory() -> None:
    """Let glibc keep the large blocks that a network frees in every step, for the next step.

    It gives them back otherwise, and the system clears each page of the next ones anew: half of the time of a step with
    128 images of 128x128 px on a CPU (benchmarks/RESULTS.md). Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _MOST)
        mallopt(_M_ARENA_MAX, 1)  # other threads' arenas give memory back whatever they are told
