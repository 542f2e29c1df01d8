"""What is to be learned, and by which rules."""

from dataclasses import dataclass
from functools import cached_property

import torch

from photoz.data import EpochPlan
from photoz.model.bins import RedshiftBins
from photoz.model.names import Recipe
from photoz.model.network import Network
from photoz.runtime import World
from photoz.train.losses import BinnedLoss, Loss, squared_error
from photoz.train.pixels import Pixels
from photoz.train.state import State


@dataclass(frozen=True)
class Problem:
    """Galaxies to train and validate on, a recipe, and where it is computed."""

    train: Pixels
    val: Pixels
    bins: RedshiftBins
    recipe: Recipe
    seed: int
    device: torch.device
    world: World
    look_every: int | None = None  # steps between looks at the loss; None: by the device

    @cached_property
    def plan(self) -> EpochPlan:
        """Which galaxies this rank sees at each step."""
        return EpochPlan(len(self.train), self.recipe.batch_size, self.seed, self.world.rank, self.world.size)

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.recipe.epochs * self.plan.steps

    def loss(self) -> Loss:
        """What is made small."""
        binned = self.recipe.head == "binned"
        return BinnedLoss(self.bins, self.recipe.smoothing, self.device) if binned else squared_error

    def begin(self, network: Network) -> State:
        """A run before its first step; the network moves to the device."""
        network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return State(network, self.recipe, self.steps)
