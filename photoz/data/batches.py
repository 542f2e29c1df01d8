"""Batches on a device. Apart from the rest so that reading tables and shards does not import torch."""

import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from photoz.data.image_set import DecodedImages
from photoz.data.layout import ImageFormat

_DEVICE_SHARE = 0.5  # of a GPU's free memory; the rest is for the network


def to_device(images_bchw: NDArray[np.generic] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a batch (b, c, h, w) to `device`, still in its stored dtype and order in memory.

    Conversion to float and augmentation belong on the device: bytes are a quarter of the traffic.
    """
    batch = images_bchw if isinstance(images_bchw, torch.Tensor) else torch.from_numpy(images_bchw)
    # From memory that the system may move, a copy to a GPU would wait for what the GPU is doing.
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch


def numbers_on(device: torch.device, indices: NDArray[np.integer[Any]]) -> torch.Tensor:
    """Indices on `device`; a GPU is not waited for."""
    return to_device(np.ascontiguousarray(indices), device)


def picked(images: DecodedImages, parts: Iterable[NDArray[np.integer[Any]]]) -> Iterator[torch.Tensor]:
    """images.take_bchw of each part, by all cores; in memory from which a GPU, if there is one, copies by itself."""
    pinned = torch.cuda.is_available()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it written to
        stored = torch.from_numpy(images.stored)
    for part in parts:
        batch = torch.empty((len(part), *stored.shape[1:]), dtype=stored.dtype, pin_memory=pinned)
        torch.index_select(stored, 0, torch.from_numpy(part), out=batch)
        yield tensor_bchw(batch, images.image)


def tensor_bchw(stored: torch.Tensor, image: ImageFormat) -> torch.Tensor:
    """View decoded images as (b, c, h, w); see decode.as_bchw."""
    return stored.permute(0, 3, 1, 2) if image.format == "jpg" else stored


def on_device(batches: Iterable[NDArray[np.generic] | torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
    """to_device of each batch, in order. To a GPU each is copied while the one before it is computed on."""
    if device.type != "cuda":
        for images_bchw in batches:
            yield to_device(images_bchw, device)
        return
    copies = _copy_stream(device)
    ahead: tuple[torch.Tensor, torch.cuda.Event] | None = None
    for images_bchw in batches:
        with torch.cuda.stream(copies):
            copied = to_device(images_bchw, device), copies.record_event()
        if ahead:
            yield _arrived(*ahead)
        ahead = copied
    if ahead:
        yield _arrived(*ahead)


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    # One for all: torch keeps freed memory for each stream by itself.
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _arrived(batch: torch.Tensor, copied: torch.cuda.Event) -> torch.Tensor:
    """A batch that the current stream may use once its copy is done, and whose memory stays until that use is over."""
    here = torch.cuda.current_stream(batch.device)
    here.wait_event(copied)
    batch.record_stream(here)
    return batch


def fits_on(device: torch.device, wanted: int) -> bool:
    """Whether `wanted` bytes of images may stay on a GPU. Never on a CPU: they are in its memory anyway."""
    return device.type == "cuda" and wanted <= _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
