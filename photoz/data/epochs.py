"""Which samples each rank sees at each step: a fresh shuffle an epoch, fixed by seed, epoch and world alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photoz.errors import BadInput


@dataclass(frozen=True)
class EpochPlan:
    """Batches of sample indices for `rank` of `world`, `batch_size` being one rank's.

    Every sample comes once an epoch. Where `samples` is no multiple of `world`, the epoch's first up to
    `world - 1` samples come a second time at its end, so that all ranks take the same steps in batches of equal
    size. Sizes differ by at most one from step to step: there is no tiny last batch.
    """

    samples: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise BadInput(f"{self.samples} samples to train on: expected at least 1; check the split's size")
        if self.batch_size < 1:
            raise BadInput(f"batch size {self.batch_size}: expected at least 1")
        if self.seed < 0:
            raise BadInput(f"seed {self.seed}: expected 0 or more")
        if not 0 <= self.rank < self.world:
            raise BadInput(f"rank {self.rank} of {self.world}: expected 0 <= rank < world")

    @property
    def samples_per_rank(self) -> int:
        """Samples that each rank sees an epoch, repeats included."""
        return -(-self.samples // self.world)

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every rank."""
        return -(-self.samples_per_rank // self.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """This rank's samples in the epoch, in order."""
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.samples)
        # np.resize repeats the start of the shuffle to fill the last turn of the ranks.
        return np.resize(shuffled, self.samples_per_rank * self.world)[self.rank :: self.world]

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[NDArray[np.int64]]:
        """Sample indices of each step from `start_step` on, exactly as an unbroken epoch would give them."""
        order = self.order(epoch)
        for step in range(start_step, self.steps):
            yield order[step * len(order) // self.steps : (step + 1) * len(order) // self.steps]
