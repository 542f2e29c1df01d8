"""Random flips, quarter turns and shifts, on the device and on stored pixels.

Legend: b image, c channel, h row, w column.
"""

import torch

from photoz.model.orientation import orientations_of, turned


def turn_at_random(images_bchw: torch.Tensor, generator: torch.Generator, shift_px: int = 0) -> torch.Tensor:
    """Each eighth of a shuffled batch in another orientation, and shifted by up to `shift_px` along either axis.

    There are four orientations where images aren't square. A batch's order is random, so which images come to be
    turned how is too, at a tenth of the cost of drawing for each.
    """
    kinds = orientations_of(*images_bchw.shape[2:])
    first = int(torch.randint(len(kinds), (1,), generator=generator))
    parts = [
        turned(part, kinds[(first + place) % len(kinds)])
        for place, part in enumerate(images_bchw.tensor_split(len(kinds)))
    ]
    if shift_px:
        shifts = torch.randint(-shift_px, shift_px + 1, (len(kinds), 2), generator=generator).tolist()
        parts = [part.roll(shift, (2, 3)) for part, shift in zip(parts, shifts, strict=True)]
    return torch.cat(parts)
