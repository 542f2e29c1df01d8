"""The eight flips and quarter turns of a square image: the sky has no up. On the device, on stored pixels."""

import torch

ORIENTATIONS = 8


def orientations_of(height: int, width: int) -> tuple[int, ...]:
    """Those that leave an image's shape as it is."""
    return tuple(range(ORIENTATIONS)) if height == width else (0, 2, 4, 6)


def turned(images_bchw: torch.Tensor, orientation: int) -> torch.Tensor:
    """Images in one of eight orientations, of which 0 is upright."""
    quarter_turned = torch.rot90(images_bchw, orientation % 4, (2, 3))
    return quarter_turned if orientation < 4 else quarter_turned.flip(3)
