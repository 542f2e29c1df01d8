"""One training step. Legend: b image, c channel, h row, w column."""

from dataclasses import dataclass

import numpy as np
import torch

from photoz.errors import BadInput
from photoz.model.devices import autocast
from photoz.model.network import Batch
from photoz.runtime import stop_requested
from photoz.train import distributed
from photoz.train.augment import turn_at_random
from photoz.train.gradients import Told, average_gradients
from photoz.train.graphs import RecordedSteps
from photoz.train.optimizer import MAX_GRADIENT_NORM, learning_rate, set_rate
from photoz.train.problem import Problem
from photoz.train.state import State
from photoz.train.timing import StepClock

_LOOK_EVERY = 20  # steps on CUDA


@dataclass(frozen=True)
class _Seen:
    """A step's mean loss, on the device, and its galaxies."""

    loss: torch.Tensor
    galaxies: int


class TrainingStep:
    """Changes a state by one batch at a time; every few steps the ranks look at the loss and tell one another of it."""

    def __init__(self, problem: Problem, state: State, clock: StepClock, micro_batch: int | None = None) -> None:
        self.problem, self.state, self.clock, self.micro_batch = problem, state, clock, micro_batch
        world, device = problem.world, problem.device
        self.network = distributed.spread(state.network, world, device)
        self.loss = problem.loss()
        self._parameters = list(state.network.parameters())
        self._look_every = problem.look_every or (1 if device.type == "cpu" else _LOOK_EVERY)
        self._unseen: list[_Seen] = []
        # Several GPUs' gradients are sent during the backward pass, which no graph records.
        self._recorded = RecordedSteps(self._whole) if device.type == "cuda" and world.size == 1 else None

    def take(self, batch: Batch, z_spec_b: torch.Tensor, save: bool) -> Told:
        """Take a step, and return what the ranks told one another after it; `save`: this rank wants a checkpoint.

        Nothing here waits for the device but a look. Raises BadInput after a loss that is not finite.
        """
        problem, state, at = self.problem, self.state, self.state.progress
        recipe, plan = problem.recipe, problem.plan
        generator = seeded(problem, at.epoch, at.step)
        if recipe.augment:
            batch = batch._replace(images_bchw=turn_at_random(batch.images_bchw, generator, recipe.shift_px))
        set_rate(state.optimizer, learning_rate(recipe, at.steps_done, problem.steps))
        # The mean over ranks must be the mean over galaxies, also where one rank has a galaxy more than another.
        weight = len(z_spec_b) * problem.world.size / plan.step_size(at.step)
        loss = self._recorded(batch, z_spec_b) if self._recorded else self._backward(batch, z_spec_b, weight)
        self._unseen.append(_Seen(loss * len(z_spec_b), len(z_spec_b)))
        looks = (at.step + 1) % self._look_every == 0 or at.step + 1 == plan.steps
        told = self._to_tell(save) if looks else None
        self.clock.lap("forward_backward")
        told = average_gradients(self._parameters, told, problem.world, problem.device)
        self.clock.lap("communication")
        if told:
            self._take_in(told)
        if not self._recorded:
            self._change_weights()
        at.step, at.steps_done = at.step + 1, at.steps_done + 1
        state.average.update(at.steps_done)
        return told or Told()

    def _whole(self, batch: Batch, z_spec_b: torch.Tensor) -> torch.Tensor:
        """Gradients of a batch, and the change of the weights by them; returns the mean loss."""
        loss = self._backward(batch, z_spec_b, 1.0)
        self._change_weights()
        return loss

    def _change_weights(self) -> None:
        torch.nn.utils.clip_grad_norm_(self._parameters, MAX_GRADIENT_NORM, foreach=True)
        self.state.optimizer.step()

    def _backward(self, batch: Batch, z_spec_b: torch.Tensor, weight: float) -> torch.Tensor:
        """Gradients of the mean loss times `weight`, some images at a time if so asked; returns the mean loss."""
        self.state.optimizer.zero_grad(set_to_none=True)
        device, bfloat16_on_cpu = self.problem.device, self.state.network.bfloat16_on_cpu
        parts = -(-len(z_spec_b) // (self.micro_batch or len(z_spec_b)))
        total = torch.zeros((), device=device)
        chunks = list(zip(*(values.tensor_split(parts) for values in (*batch, z_spec_b)), strict=True))
        for number, (*batch_part, z_spec) in enumerate(chunks, 1):
            # With several CUDA devices gradients are sent during the last backward pass only.
            with distributed.gradients_kept_here(self.network, number < len(chunks)):
                with autocast(device, bfloat16_on_cpu):
                    answer = self.network(*batch_part)
                share = len(z_spec) / len(z_spec_b)
                loss = self.loss(answer, z_spec)
                (loss * (share * weight)).backward()  # type: ignore[no-untyped-call]
                total += loss.detach() * share
        return total

    def _to_tell(self, save: bool) -> Told:
        """What this rank has seen since the last look. On CUDA this waits for the device."""
        losses = torch.stack([seen.loss for seen in self._unseen]).tolist()
        galaxies = sum(seen.galaxies for seen in self._unseen)
        self._unseen.clear()
        return Told(stop_requested(), not np.isfinite(losses).all(), save, sum(losses), galaxies)

    def _take_in(self, told: Told) -> None:
        at = self.state.progress
        if told.failed:
            raise BadInput(
                f"loss is {told.loss_sum / max(told.galaxies, 1)} by step {at.step + 1} of epoch {at.epoch + 1}: "
                "expected a finite number; look for NaN or extreme pixels and redshifts in the shards"
            )
        at.loss_sum, at.galaxies = at.loss_sum + told.loss_sum, at.galaxies + int(told.galaxies)


def seeded(problem: Problem, epoch: int, step: int) -> torch.Generator:
    """Seed dropout, and return the augmentation's generator, by what identifies the step: nothing has to be saved."""
    key = np.random.SeedSequence((problem.seed, epoch, step, problem.world.rank)).generate_state(2)
    # torch.manual_seed would also note it, with a traceback, for each kind of device that is not in use.
    seed_dropout = torch.cuda.manual_seed if problem.device.type == "cuda" else torch.default_generator.manual_seed
    seed_dropout(int(key[0]))
    return torch.Generator().manual_seed(int(key[1]))
