"""Which device a job runs on, and in which precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from photoz.errors import BadInput

DEVICES = ("auto", "cpu", "cuda")


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
