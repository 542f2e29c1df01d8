"""Which samples each rank sees at each step: a fresh shuffle an epoch, fixed by seed and epoch alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photoz.errors import BadInput


@dataclass(frozen=True)
class EpochPlan:
    """Batches of sample indices for `rank` of `world`; `batch_size` is that of all ranks together.

    Every sample comes exactly once an epoch. A step's samples are the same ones at any number of ranks, so an epoch
    can be taken up at any step by another number of them. Sizes differ by at most one from step to step, and from rank
    to rank: there is no tiny last batch, and a rank's gradient counts by its share of the step (see `step_size`).
    """

    samples: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise BadInput(f"batch size {self.batch_size}: expected at least 1")
        if self.seed < 0:
            raise BadInput(f"seed {self.seed}: expected 0 or more")
        if not 0 <= self.rank < self.world:
            raise BadInput(f"rank {self.rank} of {self.world}: expected 0 <= rank < world")
        if self.samples < self.world or self.batch_size < self.world:
            raise BadInput(
                f"{self.samples} samples in batches of {self.batch_size}: expected at least {self.world} of both, "
                f"one for each process; check the split's size and --batch-size"
            )

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every rank."""
        # As many as the batch size asks for, but no step so small that a rank has nothing to do.
        return max(1, min(-(-self.samples // self.batch_size), self.samples // self.world))

    def step_size(self, step: int) -> int:
        """Samples of all ranks together in a step."""
        low, high = self._bounds(step)
        return high - low

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All samples in the epoch's order."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.samples)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[NDArray[np.int64]]:
        """This rank's samples of each step from `start_step` on, exactly as an unbroken epoch would give them."""
        order = self.order(epoch)
        for step in range(start_step, self.steps):
            low, high = self._bounds(step)
            yield order[low:high][self.rank :: self.world]

    def _bounds(self, step: int) -> tuple[int, int]:
        return step * self.samples // self.steps, (step + 1) * self.samples // self.steps
