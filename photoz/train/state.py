"""The state of a training run: everything that a resumed run needs to go on as if it had not stopped."""

import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from photoz.errors import BadFormat
from photoz.model.names import Recipe
from photoz.model.network import Network
from photoz.train.optimizer import WeightAverage, make_optimizer

Weights = dict[str, torch.Tensor]


@dataclass
class Progress:
    """Where the run is, and what it has found so far."""

    epoch: int = 0
    step: int = 0  # within the epoch
    steps_done: int = 0
    loss_sum: float = 0.0  # over the epoch's galaxies so far, those of all ranks
    galaxies: int = 0
    seconds: float = 0.0  # of this epoch, in runs before this one
    best_epoch: int = 0  # counted from 1; 0 before the first
    best_criterion: float = float("inf")
    history: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)

    def next_epoch(self) -> None:
        """Count the epoch as done."""
        self.epoch, self.step, self.loss_sum, self.galaxies, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0


@dataclass
class Checkpoint:
    """One run's state at a step: weights, their average, the best average, the optimizer and the progress."""

    network: Weights
    average: Weights
    best: Weights
    optimizer: dict[str, Any]
    progress: Progress

    def encode(self) -> bytes:
        """Bytes of plain tensors and numbers, which torch reads with weights_only."""
        parts = {name: getattr(self, name) for name in ("network", "average", "best", "optimizer")}
        file = io.BytesIO()
        torch.save(parts | {"progress": asdict(self.progress)}, file)
        return file.getvalue()

    def check_fit(self, network: nn.Module) -> None:
        """Raise BadFormat unless these are weights of such a network."""
        expected = _shapes(network.state_dict())
        if _shapes(self.network) != expected or _shapes(self.average) != expected:
            raise BadFormat("the weights are those of another network")

    @classmethod
    def decode(cls, data: bytes, device: torch.device) -> "Checkpoint":
        """Read it back. Raises BadFormat if it is no checkpoint of this version."""
        try:
            found = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
            return cls(**found | {"progress": Progress(**found["progress"])})
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadFormat(f"not a checkpoint of this version ({reason})") from None


class State:
    """All that a run of `steps` steps changes: the network, its average, the optimizer, the best weights, progress."""

    def __init__(self, network: Network, recipe: Recipe, steps: int) -> None:
        self.network = network
        self.average = WeightAverage(network, recipe.average * steps)
        self.optimizer = make_optimizer(network, recipe)
        self.best: Weights = {}
        self.progress = Progress()

    def checkpoint(self) -> Checkpoint:
        """The state to save; its weights are those in use."""
        weights, average = self.network.state_dict(), self.average.network.state_dict()
        return Checkpoint(weights, average, self.best, self.optimizer.state_dict(), self.progress)

    def restore(self, found: Checkpoint) -> None:
        """Go on from a saved state."""
        self.network.load_state_dict(found.network)
        self.average.network.load_state_dict(found.average)
        self.optimizer.load_state_dict(found.optimizer)
        self.best, self.progress = found.best, found.progress

    def keep_best(self) -> None:
        """The averaged weights are the best so far."""
        self.best = {name: value.clone() for name, value in self.average.network.state_dict().items()}

    def best_network(self) -> Network:
        """The averaged network with the best weights."""
        self.average.network.load_state_dict(self.best)
        return self.average.network


def _shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}
