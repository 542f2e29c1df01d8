"""Batches of training images on the device. Legend: b image, c channel, h row, w column."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import tee
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from photoz import progress
from photoz.data import Images
from photoz.data.batches import numbers_on, on_device
from photoz.data.gpu_jpeg import MEASURED_ON, Decode, decoded_by, gpu_decoder
from photoz.data.image_set import StreamedImages
from photoz.runtime import check_stop
from photoz.train.sample import Labelled

_CHUNK = 2048

Indices = NDArray[np.integer[Any]]
Batch = tuple[torch.Tensor, torch.Tensor]  # images (b, c, h, w) as stored, and redshifts (b,), on the device


class Pixels:
    """A split's images and redshifts: all on the device if `resident`, else a batch at a time."""

    def __init__(self, labelled: Labelled, device: torch.device, resident: bool = False) -> None:
        self._images, self._device = labelled.images, device
        self.z_spec_b = torch.from_numpy(labelled.z_spec.astype(np.float32)).to(device)
        self._resident = uploaded(labelled.images, device) if resident else None

    def __len__(self) -> int:
        return len(self.z_spec_b)

    def take(self, indices: Indices) -> Batch:
        """The galaxies at `indices`."""
        return next(iter(self.batches([indices])))

    def batches(self, parts: Iterable[Indices]) -> Iterator[Batch]:
        """The galaxies of each part, in order; a batch is good until the next but one."""
        if self._resident is not None:
            for part in parts:
                where = numbers_on(self._device, part)
                yield self._resident[where], self.z_spec_b[where]
            return
        asked, wanted = tee(parts)
        for part, images_bchw in zip(asked, on_device(self._images.batches(wanted), self._device), strict=True):
            yield images_bchw, self.z_spec_b[numbers_on(self._device, part)]


def uploaded(images: Images, device: torch.device) -> torch.Tensor:
    """All of a split's images on the device, as stored, (b, c, h, w)."""
    shape, dtype = (len(images), *images.image.shape), torch.from_numpy(np.empty(0, images.image.dtype)).dtype
    found = torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)
    chunks = [np.arange(at, min(at + _CHUNK, len(images))) for at in range(0, len(images), _CHUNK)]
    with progress.stage("upload", total=len(images), unit="images") as bar:
        for chunk, images_bchw in zip(chunks, _decoded(images, chunks, device), strict=True):
            check_stop()
            found[chunk[0] : chunk[-1] + 1] = images_bchw
            bar.advance(len(chunk))
    if isinstance(images, StreamedImages):
        images.close()
    return found


def _decoded(images: Images, chunks: Sequence[Indices], device: torch.device) -> Iterator[torch.Tensor]:
    """Each chunk on the device, decoded there where a GPU is faster at it."""
    if isinstance(images, StreamedImages):
        decode = gpu_decoder(images.image, device, lambda: images.members(chunks[0][:MEASURED_ON]))
        if decode:
            return _decoded_there(decode, images, chunks, device)
    return on_device(images.batches(chunks), device)


def _decoded_there(
    decode: Decode, images: StreamedImages, chunks: Sequence[Indices], device: torch.device
) -> Iterator[torch.Tensor]:
    for chunk in chunks:
        yield decoded_by(decode, images.members(chunk), partial(images.take_bchw, chunk), device)
