"""Optimizer, learning-rate schedule and the moving average of weights."""

import copy
import math

import torch
from torch import nn

from photoz.model.names import Recipe
from photoz.model.network import Network

WARM_UP = 0.05  # share of all steps
_FINAL_RATE = 0.01  # share of the peak that the cosine ends at
MAX_GRADIENT_NORM = 1.0


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with decay on weight matrices only; or plain Adam with L2 on everything where the recipe says so.

    Fused, which takes a third of the time on a CPU, too. On CUDA its steps can be recorded: see set_rate.
    """
    device = next(network.parameters()).device
    cuda = device.type == "cuda"
    rate = torch.tensor(recipe.learning_rate, device=device) if cuda else recipe.learning_rate
    if not recipe.decoupled_decay:
        decay = recipe.weight_decay
        return torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay, fused=True, capturable=cuda)
    weights = [p for name, p in network.named_parameters() if p.ndim > 1 and not name.endswith("bias")]
    others = [p for name, p in network.named_parameters() if p.ndim <= 1 or name.endswith("bias")]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, fused=True, capturable=cuda)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Have the next step taken at this rate. On CUDA it is kept there, so that recorded steps see it change."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate at `step` of `steps`: linear warm-up, then a cosine; or constant where the recipe says so."""
    if not recipe.cosine:
        return recipe.learning_rate
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / warm_up
    through = (step - warm_up) / max(1, steps - warm_up)
    return recipe.learning_rate * (_FINAL_RATE + (1.0 - _FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * through)))


class WeightAverage:
    """Exponential moving average of weights; with a horizon of 0 it is the latest weights.

    Its memory grows with the number of steps, so that the random first weights are soon forgotten.
    """

    def __init__(self, network: Network, horizon_steps: float) -> None:
        self.network: Network = copy.deepcopy(network).requires_grad_(False)
        self.horizon_steps = horizon_steps
        # Listed once: to walk through all layers takes as long as a GPU's step.
        self._weights, self._theirs = ([w.detach() for w in one.parameters()] for one in (self.network, network))
        pairs = list(zip(self.network.buffers(), network.buffers(), strict=True))
        kinds = {own.dtype for own, _ in pairs}  # those of one kind are copied together
        self._buffers = [
            ([a for a, _ in pairs if a.dtype == kind], [b for a, b in pairs if a.dtype == kind]) for kind in kinds
        ]

    @torch.no_grad()
    def update(self, steps_done: int) -> None:
        """Take in the network's weights after `steps_done` steps."""
        memory = min(self.horizon_steps, steps_done / 10)
        torch._foreach_lerp_(self._weights, self._theirs, 1.0 / (1.0 + memory))
        for own, new in self._buffers:
            torch._foreach_copy_(own, new)
