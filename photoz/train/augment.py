"""The eight flips and quarter turns of a square image: the sky has no up. On the device, on stored pixels.

Legend: b image, c channel, h row, w column.
"""

import torch


def turn_at_random(images_bchw: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image in one of its eight orientations (four if it isn't square), drawn from a CPU generator."""
    choice_3b = torch.randint(2, (3, len(images_bchw)), generator=generator).bool().to(images_bchw.device)
    flip_h, flip_w, swap = choice_3b[:, :, None, None, None]
    turned = torch.where(flip_h, images_bchw.flip(2), images_bchw)
    turned = torch.where(flip_w, turned.flip(3), turned)
    if images_bchw.shape[2] == images_bchw.shape[3]:
        turned = torch.where(swap, turned.transpose(2, 3), turned)
    return turned.contiguous(memory_format=torch.channels_last)
