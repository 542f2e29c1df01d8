"""JPEGs decoded by a GPU (nvJPEG, through torchvision), where that is installed and proves to be faster.

Legend: b image, c channel, h row, w column.
"""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from photoz.data.batches import to_device
from photoz.data.decode import as_bchw, decode_into, stored_shape
from photoz.data.layout import ImageFormat
from photoz.jpeg import check_scans
from photoz.runtime import usable_cores

log = logging.getLogger("photoz.data")

MEASURED_ON = 512  # images: less than half a second of one core
_MOST_DIFFERENCE = 1.0  # level of 255, on average: the two decoders interpolate colours each in its own way

Jpegs = Sequence[bytes]
Decode = Callable[[Jpegs], torch.Tensor]  # JPEGs -> images (b, c, h, w) on the device


def torchvision_decoder(image: ImageFormat, device: torch.device) -> Decode | None:
    """What decodes JPEGs on `device`; None where images are no JPEGs, or torchvision is not there.

    Raises ValueError for images that are broken, or of another shape.
    """
    if image.format != "jpg":
        return None
    try:
        from torchvision.io import ImageReadMode, decode_jpeg  # an extra; deprecated in 0.29, so it may go
    except (ImportError, RuntimeError) as error:  # the latter beside a torch that it was not made for
        log.info("JPEGs are decoded on the CPU: no torchvision (%s)", error)
        return None
    mode = {1: ImageReadMode.GRAY, 3: ImageReadMode.RGB}[image.channels]

    def decode(jpegs: Jpegs) -> torch.Tensor:
        for jpeg in jpegs:
            check_scans(jpeg)
        raw = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        try:
            found = torch.stack(decode_jpeg(raw, mode, device=device))
        except RuntimeError as error:
            raise ValueError(str(error)) from None
        if found.shape[1:] != image.shape:
            raise ValueError(f"images of shape {tuple(found.shape[1:])}, expected {image.shape}")
        return found.contiguous(memory_format=torch.channels_last)

    return decode


def cpu_decoder(image: ImageFormat, device: torch.device) -> Decode:
    """The same on one core, and then copied to `device`."""

    def decode(jpegs: Jpegs) -> torch.Tensor:
        out = np.empty((len(jpegs), *stored_shape(image)), image.dtype)
        for jpeg, place in zip(jpegs, out, strict=True):
            decode_into(jpeg, image, place)
        return to_device(as_bchw(out, image), device)

    return decode


def faster(decode: Decode, sample: Jpegs, image: ImageFormat, device: torch.device, cores: int) -> bool:
    """Whether `decode` beats so many cores on these JPEGs, and sees the same pictures. The log says what was found."""
    try:
        decode(sample[:8])  # the first time it sets itself up
        there, there_us = _timed(decode, sample, device)
    except ValueError as error:
        log.info("JPEGs are decoded on the CPU: the GPU's decoder says %s", error)
        return False
    here, here_us = _timed(cpu_decoder(image, device), sample, device)
    difference = float((there.float() - here.float()).abs().mean())
    here_us /= cores
    wins = there_us < here_us and difference <= _MOST_DIFFERENCE
    log.info(
        "JPEGs are decoded on the %s: GPU %.1f us an image, %d cores %.1f us, %.2f levels apart",
        "GPU" if wins else "CPU", there_us, cores, here_us, difference,
    )  # fmt: skip
    return wins


def _timed(decode: Decode, sample: Jpegs, device: torch.device) -> tuple[torch.Tensor, float]:
    """Images, and microseconds for each."""
    started = time.perf_counter()
    images_bchw = decode(sample)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return images_bchw, 1e6 * (time.perf_counter() - started) / len(sample)


def gpu_decoder(image: ImageFormat, device: torch.device, sample: Callable[[], Jpegs]) -> Decode | None:
    """A decoder that runs on the GPU `device`, if there is one that is faster than this process's cores."""
    decode = torchvision_decoder(image, device) if device.type == "cuda" else None
    return decode if decode and faster(decode, sample(), image, device, usable_cores()) else None


def decoded_by(
    decode: Decode, jpegs: Jpegs, otherwise: Callable[[], NDArray[np.generic]], device: torch.device
) -> torch.Tensor:
    """JPEGs as the GPU decodes them; `otherwise` where it can't: that reads more kinds, or names what is broken."""
    try:
        return decode(jpegs)
    except ValueError:
        return to_device(otherwise(), device)
