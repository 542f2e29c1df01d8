"""Batch normalisation of few channels on a GPU. Legend: b image, c channel, h row, w column, n neighbour.

torch's kernels for it are at their best with 256 channels or more; with 32 they run at a third of the memory's speed
(docs/results.md). So neighbouring pixels are taken for one of 256 channels, and the statistics of each neighbour
are put together as those of several GPUs are.
"""

from typing import Any

import torch
from torch import nn

_FULL_WIDTH = 256  # channels


def batch_normalised(x_bchw: torch.Tensor, norm: nn.modules.batchnorm._BatchNorm) -> torch.Tensor:
    """`norm(x_bchw)`, but for rounding and `num_batches_tracked`, which nobody uses."""
    pixels = x_bchw.numel() // x_bchw.shape[1]
    neighbours = _FULL_WIDTH // x_bchw.shape[1]
    gains = x_bchw.is_cuda and norm.training and neighbours > 2 and pixels % neighbours == 0
    # A norm over several GPUs is of another class.
    usual = type(norm) is nn.BatchNorm2d and norm.affine and norm.running_mean is not None and norm.momentum is not None
    found: torch.Tensor = (
        _Folded.apply(x_bchw, norm.weight, norm.bias, norm, neighbours)  # type: ignore[no-untyped-call]
        if gains and usual
        else norm(x_bchw)
    )
    return found


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_bchw: torch.Tensor, weight_c: torch.Tensor, bias_c: torch.Tensor, norm: nn.BatchNorm2d, n: int
    ) -> torch.Tensor:
        wide = _folded(x_bchw, n)
        assert norm.momentum is not None
        mean_nc, invstd_nc = (each.view(n, -1) for each in torch.batch_norm_stats(wide, norm.eps))
        counts_n = torch.full((n,), len(wide), dtype=mean_nc.dtype, device=wide.device)
        mean_c, invstd_c = torch.batch_norm_gather_stats_with_counts(
            wide, mean_nc, invstd_nc, norm.running_mean, norm.running_var, norm.momentum, norm.eps, counts_n
        )
        ctx.n = n
        ctx.save_for_backward(x_bchw, weight_c, mean_c, invstd_c)
        weight, bias, mean, invstd = (each.repeat(n) for each in (weight_c, bias_c, mean_c, invstd_c))
        # Not a view of what the kernel makes: what comes next may change it in place.
        y_bchw = torch.empty_like(x_bchw, memory_format=torch.channels_last)
        torch.batch_norm_elemt(wide, weight, bias, mean, invstd, norm.eps, out=_folded(y_bchw, n))
        return y_bchw

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_bchw, weight_c, mean_c, invstd_c = ctx.saved_tensors
        n, (gradient_bchw,) = ctx.n, gradients
        wide, gradient = _folded(x_bchw, n), _folded(gradient_bchw, n)
        weight, mean, invstd = (each.repeat(n) for each in (weight_c, mean_c, invstd_c))
        sums = torch.batch_norm_backward_reduce(gradient, wide, mean, invstd, weight, True, True, True)
        sum_dy_c, sum_dy_xmu_c, weight_grad_c, bias_grad_c = (each.view(n, -1).sum(0) for each in sums)
        pixels = torch.full((1,), n * len(wide), dtype=torch.int32, device=wide.device)
        x_grad = torch.batch_norm_backward_elemt(
            gradient, wide, mean, invstd, weight, sum_dy_c.repeat(n), sum_dy_xmu_c.repeat(n), pixels
        )
        b, c, h, w = x_bchw.shape
        return x_grad.view(b, h, w, c).permute(0, 3, 1, 2), weight_grad_c, bias_grad_c, None, None


def _folded(x_bchw: torch.Tensor, n: int) -> torch.Tensor:
    """Pixels, n a row: (b h w / n, n c)."""
    pixels_bhwc = x_bchw.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return pixels_bhwc.view(-1, n * x_bchw.shape[1])
