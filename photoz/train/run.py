"""The training loop."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from photoz import progress as shown
from photoz.errors import BadInput, Preempted
from photoz.train import distributed
from photoz.train.forward import in_batches, measured, run_on_first
from photoz.train.optimizer import learning_rate
from photoz.train.pixels import Pixels
from photoz.train.problem import Problem
from photoz.train.state import Checkpoint, State
from photoz.train.step import TrainingStep
from photoz.train.timing import StepClock, in_words
from photoz.train.tracking import Report
from photoz.train.validation import Validation, validate

log = logging.getLogger("photoz.train")

Save = Callable[[Checkpoint], None]


@dataclass(frozen=True)
class Rules:
    """What does not matter to what is learned, but for rounding."""

    save_every_s: float = 1e9
    micro_batch: int | None = None
    report: Report = lambda row: None  # takes an epoch's history and times


def train(
    problem: Problem,
    state: State,
    rules: Rules | None = None,
    save: Save = lambda checkpoint: None,
    clock: StepClock | None = None,
) -> None:
    """Train to the last epoch, from wherever the state is. Raises Preempted at a stop, the state saved."""
    rules, clock = rules or Rules(), clock or StepClock()
    at, plan, epochs = state.progress, problem.plan, problem.recipe.epochs
    step = TrainingStep(problem, state, clock, rules.micro_batch)
    train_set, val_set = _measured_once(problem, state) if at.epoch < epochs else (problem.train, problem.val)
    saver, total = _Saver(problem, state, rules, save), epochs * len(problem.train)
    with shown.stage("train", total=total, unit="galaxies", before=at.epoch * len(problem.train) + at.galaxies) as bar:
        try:
            while at.epoch < epochs:
                step.network.train()
                clock.start()
                for batch, z_spec_b in train_set.batches(plan.batches(at.epoch, at.step)):
                    clock.lap("data_wait")
                    bar.advance(plan.step_size(at.step))
                    told = step.take(batch, z_spec_b, saver.due())
                    if told.stop:
                        distributed.stop_now()
                    if told.save:
                        saver.save()
                    clock.lap("rest")
                    bar.note(_in_words(problem, state, saver.seconds()))
                train_seconds = saver.seconds()
                if found := _validated(problem, state, val_set):
                    row = _noted(problem, state, found, train_seconds, saver.seconds(), clock)
                    rules.report(row)
                at.next_epoch()
                saver.save()
                bar.note(_in_words(problem, state, saver.seconds()))
        except Preempted:
            saver.save()
            raise
    if any(clock.total.values()):
        log.info("time of training: %s", in_words(clock.total))


def _measured_once(problem: Problem, state: State) -> tuple[Pixels, Pixels]:
    """Galaxies to train and validate on, with measurements that no orientation changes. A shift changes them."""
    by = (problem.world, problem.device)
    shifted = problem.recipe.shift_px > 0
    train_set = problem.train if shifted else measured(state.network, "train", problem.train, *by)
    return train_set, measured(state.network, "val", problem.val, *by)


class _Saver:
    """Saves the state on rank 0, no step twice, and counts the epoch's seconds."""

    def __init__(self, problem: Problem, state: State, rules: Rules, save: Save) -> None:
        self._first_rank, self._state = problem.world.rank == 0, state
        self._every_s, self._save = rules.save_every_s, save
        self._counted_until = self._saved_at = time.monotonic()
        self._saved = self._place()

    def _place(self) -> tuple[int, int]:
        return self._state.progress.epoch, self._state.progress.step

    def due(self) -> bool:
        """Whether this rank wants a checkpoint now."""
        return self._first_rank and time.monotonic() - self._saved_at >= self._every_s

    def save(self) -> None:
        """Save, unless this step was saved before."""
        self.seconds()
        if self._first_rank and self._place() != self._saved:
            self._save(self._state.checkpoint())
        self._saved, self._saved_at = self._place(), time.monotonic()

    def seconds(self) -> float:
        """Seconds that this epoch has taken so far, in runs before this one, too."""
        now, at = time.monotonic(), self._state.progress
        at.seconds, self._counted_until = at.seconds + now - self._counted_until, now
        return at.seconds


def _validated(problem: Problem, state: State, val: Pixels) -> Validation | None:
    """Score the averaged weights, on rank 0. Raises BadInput for an answer that is not finite, Preempted at a stop."""
    output = run_on_first(state.average.network, val, in_batches(len(val)), problem.world, problem.device)
    if output is None:
        return None
    answer = output.answer
    as_logits = torch.from_numpy(np.log(np.maximum(answer, 1e-30))[None] if answer.ndim == 2 else answer)
    loss = float(problem.loss()(as_logits.float().to(problem.device), val.z_spec_b))
    found = validate(answer, problem.bins, val.z_spec_b.double().cpu().numpy(), loss)
    if not np.isfinite(found.criterion):
        raise BadInput(
            f"validation gives {found.criterion} after epoch {state.progress.epoch}: expected a finite error; "
            "look for extreme pixels in the val shards"
        )
    return found


def _noted(
    problem: Problem, state: State, found: Validation, train_seconds: float, seconds: float, clock: StepClock
) -> dict[str, float]:
    """Write the epoch into history and timings, and keep its weights if they are the best; returns its row."""
    at = state.progress
    if found.criterion < at.best_criterion:
        at.best_epoch, at.best_criterion = at.epoch + 1, found.criterion
        state.keep_best()
    rate = learning_rate(problem.recipe, at.steps_done - 1, problem.steps)
    epoch = {"epoch": at.epoch + 1}
    at.history.append(epoch | {"train_loss": at.loss_sum / at.galaxies} | found.columns() | {"learning_rate": rate})
    speed = at.galaxies / max(train_seconds, 1e-9)
    at.timings.append(epoch | {"seconds": seconds, "train_images_per_s": speed} | clock.columns())
    row: dict[str, float] = at.history[-1] | at.timings[-1]
    return row


def _in_words(problem: Problem, state: State, seconds: float) -> str:
    """Epoch, loss, validation and speed, for the progress bar."""
    at = state.progress
    last = at.history[-1] if at.history else None
    val = f" · val sigma_mad {last['val_sigma_mad']:.4f}" if last else ""
    loss = at.loss_sum / at.galaxies if at.galaxies else (last["train_loss"] if last else float("nan"))
    speed = f" · {at.galaxies / max(seconds, 1e-9):.0f} images/s" if at.galaxies else ""
    return f"epoch {min(at.epoch + 1, problem.recipe.epochs)} · loss {loss:.3f}{val}{speed}"
