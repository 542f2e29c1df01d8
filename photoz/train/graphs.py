"""Training steps on a GPU, recorded once for each batch size and started as one (CUDA graphs).

A step of the default network is hundreds of small kernels: one by one they take longer to start than to run.
"""

from collections import Counter
from collections.abc import Callable

import torch

from photoz.model.network import Batch

# Changes the weights by a batch and its redshifts (b,), both on the device; returns the loss.
Step = Callable[[Batch, torch.Tensor], torch.Tensor]

_AS_IS = 3  # steps of each batch size before it is recorded: libraries choose kernels and set themselves up in them


class RecordedSteps:
    """A step, recorded for the batch sizes that come again and again.

    It must start the same kernels on the same memory whenever it is called: what differs between calls is in its
    arguments, in tensors that are changed in place, or in torch's own random numbers. It must not wait for the device.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._taken: Counter[int] = Counter()
        self._graphs: dict[int, _Recorded] = {}

    def __call__(self, batch: Batch, z_spec_b: torch.Tensor) -> torch.Tensor:
        """Take the step; its loss is good until the next step."""
        size = len(z_spec_b)
        if size in self._graphs:
            return self._graphs[size].play(batch, z_spec_b)
        if self._taken[size] < _AS_IS:
            self._taken[size] += 1
            return self._step(batch, z_spec_b)
        self._graphs[size] = _Recorded(self._step, batch, z_spec_b, next(iter(self._graphs.values()), None))
        return self._graphs[size].play(batch, z_spec_b)


class _Recorded:
    """A step on memory of its own, to which each batch is copied.

    What it computes on the way lies where `other` keeps the same: batch sizes take turns.
    """

    def __init__(self, step: Step, batch: Batch, z_spec_b: torch.Tensor, other: "_Recorded | None") -> None:
        self._batch, self._z_spec_b = Batch(*map(torch.empty_like, batch)), torch.empty_like(z_spec_b)
        self._graph = torch.cuda.CUDAGraph()
        pool = other._graph.pool() if other else None
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._loss = step(self._batch, self._z_spec_b)

    def play(self, batch: Batch, z_spec_b: torch.Tensor) -> torch.Tensor:
        for own, given in zip(self._batch, batch, strict=True):
            own.copy_(given)
        self._z_spec_b.copy_(z_spec_b)
        self._graph.replay()
        return self._loss
