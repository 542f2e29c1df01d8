"""Which device a job runs on, and in which precision."""

import ctypes
from contextlib import AbstractContextManager, nullcontext
from functools import cache
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


def autocast(device: torch.device, on_cpu: bool = True) -> AbstractContextManager[Any]:
    """bfloat16 where the device computes in it (and, for a CPU, if `on_cpu`), else float32.

    Where it is only emulated it is 8 to 17 times slower.
    """
    if has_bfloat16(device.type) and (on_cpu or device.type != "cpu"):
        # Weights are used once in a pass: a cast that is kept gains nothing, and can't be recorded in a CUDA graph.
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    return nullcontext()


@cache
def has_bfloat16(device_type: str) -> bool:
    """Whether such a device has instructions for bfloat16: GPUs from Ampere on, CPUs with AVX-512 BF16 or AMX."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch don't say
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


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
