"""Which device a job runs on, and in which precision."""

import ctypes
import logging
import platform
import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch

from photoz import runtime
from photoz.errors import BadInput

log = logging.getLogger("photoz.model")

# The oldest driver for each CUDA (NVIDIA's CUDA compatibility guide): its minor versions run on one another's drivers.
LEAST_DRIVER = {12: "525", 13: "580"}
_NVIDIA_VERSION, _DEVICE_FILES = Path("/proc/driver/nvidia/version"), Path("/dev")

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MOST = 2**31 - 1


def choose_device(asked: str, local_rank: int = 0) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. Raises BadInput where cuda is asked for and can't be used, and says why.

    With `auto` a GPU that is there but can't be used is warned about.
    """
    if asked == "cpu":
        return torch.device("cpu")
    why = why_no_cuda(local_rank)
    if why is None:
        return torch.device("cuda", local_rank)
    if asked == "cuda":
        raise BadInput(f"--device cuda: {why}; mend that, or compute on the CPU with --device cpu")
    if _gpus_on_machine():
        log.warning("no GPU is used: %s", why)
    return torch.device("cpu")


def describe_device(device: torch.device, threads: int) -> str:
    """A device in words.

    `GPU NVIDIA H200 (151 GB), driver 580.95.05 (CUDA 13.0), torch 2.13.0+cu130 (CUDA 13.0)` or
    `CPU AMD EPYC, 2 threads, torch 2.13.0+cpu`.
    """
    if device.type == "cpu":
        return f"CPU {_cpu_model()}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}"
    gpu = torch.cuda.get_device_properties(device)
    driver, built = (f"{_driver()}, ", f"CUDA {torch.version.cuda}") if torch.version.cuda else ("", "ROCm")
    return f"GPU {gpu.name} ({gpu.total_memory / 1e9:.0f} GB), {driver}torch {torch.__version__} ({built})"


def why_no_cuda(local_rank: int = 0) -> str | None:
    """Why torch can't compute on this process's GPU, in words that say what to do; None if it can."""
    if torch.version.hip:  # AMD's GPUs, which torch calls cuda
        found = torch.cuda.device_count()
        return None if local_rank < found else f"torch {torch.__version__} (ROCm) finds {found} GPUs, see rocm-smi"
    built = torch.version.cuda
    gpus = _gpus_on_machine()
    if built is None:
        seen = f", although {gpus} GPU{'s are' if gpus > 1 else ' is'} visible here" if gpus else ""
        return f"torch {torch.__version__} is a build without CUDA{seen}: take a build with CUDA, or the CUDA image"
    supports = driver_cuda()
    if supports is None:
        if _kernel_driver():
            return f"the machine's {_driver()} is not visible here: in a container, docker needs --gpus, Apptainer --nv"
        return "no NVIDIA driver is visible here: the machine has no GPU, or its driver is not installed"
    needed = int(built.split(".")[0])
    if supports[0] < needed:
        least = LEAST_DRIVER.get(needed, f"for CUDA {needed}")
        older = ", or take torch or the image for CUDA 12.6, cu126" if supports[0] == 12 else ""
        return (
            f"{_driver()} is too old for torch {torch.__version__} (CUDA {built}): expected driver {least} or newer; "
            f"update it{older}"
        )
    chosen = runtime.visible_gpus()
    if chosen is not None and chosen.strip() in ("", "-1", "NoDevFiles", "void"):
        return f"CUDA_VISIBLE_DEVICES={chosen!r} hides all GPUs"
    with warnings.catch_warnings(record=True) as said:  # torch says why in a warning
        warnings.simplefilter("always")
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        reason = " ".join(str(said[-1].message).split())[:200] if said else f"visible device files: {gpus}"
        if not found:
            return f"{_driver()} finds no GPU that works ({reason}): look at nvidia-smi"
        if local_rank >= found:
            return f"local rank {local_rank} has no GPU of its own, only {found} can be used: lower --nproc"
        name, capability = torch.cuda.get_device_name(local_rank), torch.cuda.get_device_capability(local_rank)
    built_for = torch.cuda.get_arch_list()
    if not runs_on(capability, built_for):
        return (
            f"GPU {name} (compute capability {capability[0]}.{capability[1]}) is none that torch {torch.__version__} "
            f"was built for ({', '.join(built_for)}): take a build of torch that names it; for GPUs older than "
            "compute capability 7.5 that is cu126"
        )
    return None


def runs_on(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Whether a GPU of a compute capability runs code built for `sm_80`, `compute_90` and the like.

    Machine code runs on its own major version from its minor version on, PTX on any newer GPU.
    """
    major, minor = capability
    for each in built_for:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", each)
        if found is None:
            continue
        has = (int(found[2]), int(found[3]))
        if has <= capability if found[1] == "compute" else has[0] == major and has[1] <= minor:
            return True
    return False


@cache
def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA (major, minor) that the driver visible to this process supports; None if there is no driver."""
    number = ctypes.c_int(0)
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if failed or not number.value else (number.value // 1000, number.value % 1000 // 10)


def _driver() -> str:
    supports = driver_cuda()
    cuda = f" (CUDA {supports[0]}.{supports[1]})" if supports else ""
    return f"driver {_kernel_driver() or 'of an unknown version'}{cuda}"


def _kernel_driver() -> str | None:
    """Version of the machine's NVIDIA kernel module, such as 580.95.05; None if none is loaded."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)", _NVIDIA_VERSION.read_text())
    except OSError:
        return None
    return found[1] if found else None


def _gpus_on_machine() -> int:
    """NVIDIA GPUs whose device files this process sees."""
    return len([path for path in _DEVICE_FILES.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()])


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()  # Arm's kernel names no model


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
    128 images of 128x128 px on a CPU (docs/results.md). Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _MOST)
        mallopt(_M_ARENA_MAX, 1)  # other threads' arenas give memory back whatever they are told
