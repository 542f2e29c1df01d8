"""Batches on a device. Apart from the rest so that reading tables and shards does not import torch."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from photoz.data.decode import Indices
from photoz.data.image_set import DecodedImages
from photoz.data.layout import ImageFormat

_MOST_PICKERS = 8  # threads: more pick no faster, on 16 cores
_DEVICE_SHARE = 0.5  # of a GPU's free memory; the rest is for the network


def to_device(images_bchw: NDArray[np.generic] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a batch (b, c, h, w) to `device`, still in its stored dtype and order in memory.

    Conversion to float and augmentation belong on the device: bytes are a quarter of the traffic.
    """
    batch = images_bchw if isinstance(images_bchw, torch.Tensor) else torch.from_numpy(images_bchw)
    # From memory that the system may move, a copy to a GPU would wait for what the GPU is doing.
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch


def numbers_on(device: torch.device, indices: Indices) -> torch.Tensor:
    """Indices on `device`; a GPU is not waited for."""
    return to_device(np.ascontiguousarray(indices), device)


def picked(images: DecodedImages, parts: Iterable[Indices]) -> Iterator[torch.Tensor]:
    """images.take_bchw of each part, by several cores, in memory from which a GPU copies by itself if there is one."""
    stored, pinned = images.stored, torch.cuda.is_available()
    kind = torch.from_numpy(np.empty(0, stored.dtype)).dtype
    threads = max(1, min(_MOST_PICKERS, torch.get_num_threads()))
    # Not torch's threads: from 32,768 values an image on they share each image, and they wait in a loop.
    with ThreadPoolExecutor(threads, "photoz pick") as pool:
        for part in parts:
            batch = torch.empty((len(part), *stored.shape[1:]), dtype=kind, pin_memory=pinned)
            shares = zip(np.array_split(part, threads), np.array_split(batch.numpy(), threads), strict=True)
            for _ in pool.map(lambda share: np.take(stored, share[0], 0, out=share[1], mode="clip"), shares):
                pass
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
