"""The training loop. Legend: b image, c channel, h row, w column."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from photoz import progress as shown
from photoz.data import EpochPlan
from photoz.errors import BadInput, Preempted
from photoz.model.bins import RedshiftBins
from photoz.model.devices import autocast
from photoz.model.names import Recipe
from photoz.model.network import Batch, Network
from photoz.runtime import World, stop_requested
from photoz.train import distributed
from photoz.train.augment import turn_at_random
from photoz.train.forward import in_batches, measured, run_on_first
from photoz.train.gradients import Average, averaging
from photoz.train.graphs import RecordedSteps
from photoz.train.losses import BinnedLoss, Loss, squared_error
from photoz.train.optimizer import MAX_GRADIENT_NORM, WeightAverage, learning_rate, make_optimizer, set_rate
from photoz.train.pixels import Pixels
from photoz.train.state import Checkpoint, Progress, Weights
from photoz.train.timing import StepClock, in_words
from photoz.train.tracking import Report
from photoz.train.validation import Validation, validate

log = logging.getLogger("photoz.train")

_LOOK_EVERY = 20  # steps on CUDA

Save = Callable[[Checkpoint], None]


@dataclass(frozen=True)
class Problem:
    """What is to be learned, and by which rules."""

    train: Pixels
    val: Pixels
    bins: RedshiftBins
    recipe: Recipe
    seed: int
    device: torch.device
    world: World


@dataclass(frozen=True)
class Rules:
    """What does not matter to what is learned, but for rounding."""

    save_every_s: float
    micro_batch: int | None = None
    rank_timeout_s: float = 1200.0
    report: Report = lambda row: None  # takes an epoch's history and times


@dataclass(frozen=True)
class _Seen:
    """What the ranks agree on at a look."""

    stop: bool = False
    save: bool = False


class Run:
    """One training run: the network, its average, the optimizer, and where they have got to."""

    def __init__(self, problem: Problem, network: Network, save: Save, rules: Rules) -> None:
        self.problem, self.save = problem, save
        self.rules = rules
        recipe, world = problem.recipe, problem.world
        self.plan = EpochPlan(len(problem.train), recipe.batch_size, problem.seed, world.rank, world.size)
        self.look_every = 1 if problem.device.type == "cpu" else _LOOK_EVERY
        self.steps = recipe.epochs * self.plan.steps
        self.network = network.to(problem.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.network, recipe.average * self.steps)
        self.best: Weights = {}
        self.optimizer = make_optimizer(self.network, recipe)
        self.loss: Loss = (
            BinnedLoss(problem.bins, recipe.smoothing, problem.device) if recipe.head == "binned" else squared_error
        )
        self._train, self._val = problem.train, problem.val
        self.progress = Progress()
        self._counted_until = self._saved_at = time.monotonic()
        self._saved: tuple[int, int] | None = None  # (epoch, step) of the newest checkpoint
        self._unseen: list[tuple[torch.Tensor, int]] = []  # loss and galaxies of each step since the last look
        self.clock, self.spent = StepClock(), dict[str, float]()
        self._average_gradients: Average
        # Several GPUs' gradients travel during the backward pass, which is left as it is.
        alone = problem.device.type == "cuda" and world.size == 1
        self._recorded = RecordedSteps(self._whole_step) if alone else None

    def train(self) -> None:
        """Train to the last epoch, from wherever the run is. Raises Preempted at a stop, its state saved."""
        world, device = self.problem.world, self.problem.device
        network = distributed.spread(self.network, world, device)
        if self.progress.epoch < self.problem.recipe.epochs:  # a run that was stopped later has it no more to do
            self._train, self._val = self._measured_once()
        samples, epochs = len(self.problem.train), self.problem.recipe.epochs
        before = self.progress.epoch * samples + self.progress.galaxies
        with (
            averaging(self.network, world, device, self.rules.rank_timeout_s) as self._average_gradients,
            shown.stage("train", total=epochs * samples, unit="galaxies", before=before) as bar,
        ):
            self._counted_until = self._saved_at = time.monotonic()
            try:
                while self.progress.epoch < epochs:
                    self._train_epoch(network, bar)
                    self._end_epoch()
                    self._note(bar)
            except Preempted:
                self._save()
                raise
        if self.spent:
            log.info("time of training: %s", in_words(self.spent))

    def _measured_once(self) -> tuple[Pixels, Pixels]:
        """Galaxies to train and validate on, with what no orientation changes. A shift, in every step anew, would."""
        given, by = self.problem, (self.problem.world, self.problem.device)
        train = given.train if given.recipe.shift_px else measured(self.network, "train", given.train, *by)
        return train, measured(self.network, "val", given.val, *by)

    def _train_epoch(self, network: torch.nn.Module, bar: shown.Stage) -> None:
        """The steps that the epoch has left. After a stop in the validation there are none."""
        at = self.progress
        network.train()
        self.clock.start()
        wanted = self.plan.batches(at.epoch, at.step)
        for batch, z_spec_b in self._train.batches(wanted):
            self.clock.lap("data_wait")
            bar.advance(self.plan.step_size(at.step))
            self._step(network, batch, z_spec_b)
            self._note(bar)
        for part, seconds in self.clock.seconds.items():
            self.spent[part] = self.spent.get(part, 0.0) + seconds

    def _step(self, network: torch.nn.Module, batch: Batch, z_spec_b: torch.Tensor) -> None:
        """One optimizer step. Nothing in it waits for the device, unless it is a step with a look.

        Raises Preempted at a stop, and BadInput after a loss that is not finite.
        """
        at, recipe, world = self.progress, self.problem.recipe, self.problem.world
        generator = self._seeded()
        if recipe.augment:
            batch = batch._replace(images_bchw=turn_at_random(batch.images_bchw, generator, recipe.shift_px))
        rate = learning_rate(recipe, at.steps_done, self.steps)
        set_rate(self.optimizer, rate)
        # The mean over ranks is to be the mean over galaxies, also where one rank has a galaxy more than another.
        weight = len(z_spec_b) * world.size / self.plan.step_size(at.step)
        loss = self._recorded(batch, z_spec_b) if self._recorded else self._backward(network, batch, z_spec_b, weight)
        self._unseen.append((loss * len(z_spec_b), len(z_spec_b)))
        looks = (at.step + 1) % self.look_every == 0 or at.step + 1 == self.plan.steps
        told = self._to_tell() if looks else []
        self.clock.lap("forward_backward")
        sums = self._average_gradients(told)
        self.clock.lap("communication")
        seen = self._take_in(sums) if looks else _Seen()
        if not self._recorded:
            self._change_weights()
        at.step, at.steps_done = at.step + 1, at.steps_done + 1
        self.average.update(at.steps_done)
        if seen.stop:
            distributed.stop_now()
        if seen.save:
            self._save()
        self.clock.lap("rest")

    def _whole_step(self, batch: Batch, z_spec_b: torch.Tensor) -> torch.Tensor:
        """Gradients of a batch and what the weights make of them; returns the mean loss."""
        loss = self._backward(self.network, batch, z_spec_b, 1.0)
        self._change_weights()
        return loss

    def _change_weights(self) -> None:
        """By the gradients that are there."""
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM, foreach=True)
        self.optimizer.step()

    def _backward(self, network: torch.nn.Module, batch: Batch, z_spec_b: torch.Tensor, weight: float) -> torch.Tensor:
        """Gradients of the mean loss times `weight`, some images at a time if so asked; returns the mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = -(-len(z_spec_b) // (self.rules.micro_batch or len(z_spec_b)))
        total = torch.zeros((), device=self.problem.device)
        chunks = list(zip(*(values.tensor_split(parts) for values in (*batch, z_spec_b)), strict=True))
        for number, (*batch_part, z_spec) in enumerate(chunks, 1):
            # With several CUDA devices gradients travel during the last backward pass only.
            with distributed.gradients_kept_here(network, number < len(chunks)):
                with autocast(self.problem.device, self.network.bfloat16_on_cpu):
                    answer = network(*batch_part)
                share = len(z_spec) / len(z_spec_b)
                loss = self.loss(answer, z_spec)
                (loss * (share * weight)).backward()  # type: ignore[no-untyped-call]
                total += loss.detach() * share
        return total

    def _to_tell(self) -> list[float]:
        """What this rank has seen since the last look, and what it wants. On CUDA this waits for the device."""
        losses = torch.stack([loss for loss, _ in self._unseen]).tolist()
        galaxies = sum(count for _, count in self._unseen)
        save = self.problem.world.rank == 0 and time.monotonic() - self._saved_at >= self.rules.save_every_s
        return [stop_requested(), not np.isfinite(losses).all(), save, sum(losses), galaxies]

    def _take_in(self, sums: list[float]) -> "_Seen":
        """Count what all ranks have told, summed. Raises BadInput after a loss that is not finite."""
        stop, failed, save, loss_sum, galaxies = sums
        at = self.progress
        self._unseen.clear()
        if failed:
            raise BadInput(
                f"loss is {loss_sum / max(galaxies, 1)} by step {at.step + 1} of epoch {at.epoch + 1}: "
                "expected a finite number; look for NaN or extreme pixels and redshifts in the shards"
            )
        at.loss_sum, at.galaxies = at.loss_sum + loss_sum, at.galaxies + int(galaxies)
        return _Seen(stop=bool(stop), save=bool(save))

    def _seeded(self) -> torch.Generator:
        """Seed dropout, and the augmentation's generator, by what identifies the step: nothing to save or restore."""
        at, problem = self.progress, self.problem
        key = np.random.SeedSequence((problem.seed, at.epoch, at.step, problem.world.rank)).generate_state(2)
        # torch.manual_seed would also note it, with a traceback, for each kind of device that is not in use.
        seed_dropout = torch.cuda.manual_seed if problem.device.type == "cuda" else torch.default_generator.manual_seed
        seed_dropout(int(key[0]))
        return torch.Generator().manual_seed(int(key[1]))

    def _end_epoch(self) -> None:
        """Validate, keep the best weights, write history, and save a checkpoint. Raises Preempted at a stop."""
        at = self.progress
        train_seconds = self._count_seconds()
        found = self._validate()
        if found is not None:
            if found.criterion < at.best_criterion:
                at.best_epoch, at.best_criterion = at.epoch + 1, found.criterion
                self.best = {name: value.clone() for name, value in self.average.network.state_dict().items()}
            rate = learning_rate(self.problem.recipe, at.steps_done - 1, self.steps)
            at.history.append(
                {"epoch": at.epoch + 1, "train_loss": at.loss_sum / at.galaxies}
                | found.columns()
                | {"learning_rate": rate}
            )
            speed = at.galaxies / max(train_seconds, 1e-9)
            at.timings.append(
                {"epoch": at.epoch + 1, "seconds": self._count_seconds(), "train_images_per_s": speed}
                | self.clock.columns()
            )
            self.rules.report(at.history[-1] | at.timings[-1])
        at.next_epoch()
        self._save()

    def _validate(self) -> Validation | None:
        """Score the averaged weights, on rank 0. Raises BadInput for no finite answer, Preempted at a stop."""
        val, world = self._val, self.problem.world
        output = run_on_first(self.average.network, val, in_batches(len(val)), world, self.problem.device)
        if output is None:
            return None
        answer = output.answer
        as_logits = torch.from_numpy(np.log(np.maximum(answer, 1e-30))[None] if answer.ndim == 2 else answer)
        loss = float(self.loss(as_logits.float().to(self.problem.device), val.z_spec_b))
        found = validate(answer, self.problem.bins, val.z_spec_b.double().cpu().numpy(), loss)
        if not np.isfinite(found.criterion):
            raise BadInput(
                f"validation gives {found.criterion} after epoch {self.progress.epoch}: expected a finite error; "
                "look for extreme pixels in the val shards"
            )
        return found

    def _count_seconds(self) -> float:
        """Seconds that this epoch has taken so far, in runs before this one, too."""
        now = time.monotonic()
        self.progress.seconds += now - self._counted_until
        self._counted_until = now
        return self.progress.seconds

    def _note(self, bar: shown.Stage) -> None:
        at = self.progress
        last = at.history[-1] if at.history else None
        val = f" · val sigma_mad {last['val_sigma_mad']:.4f}" if last else ""
        rate = at.galaxies / max(self._count_seconds(), 1e-9)
        loss = at.loss_sum / at.galaxies if at.galaxies else (last["train_loss"] if last else float("nan"))
        speed = f" · {rate:.0f} images/s" if at.galaxies else ""
        bar.note(f"epoch {min(at.epoch + 1, self.problem.recipe.epochs)} · loss {loss:.3f}{val}{speed}")

    def _save(self) -> None:
        self._count_seconds()
        where = (self.progress.epoch, self.progress.step)
        if self.problem.world.rank == 0 and where != self._saved:
            optimizer = self.optimizer.state_dict()
            weights, average = self.network.state_dict(), self.average.network.state_dict()
            self.save(Checkpoint(weights, average, self.best, optimizer, self.progress))
        self._saved, self._saved_at = where, time.monotonic()

    def resume(self, found: Checkpoint) -> None:
        """Take up a saved state."""
        self.network.load_state_dict(found.network)
        self.average.network.load_state_dict(found.average)
        self.best, self.progress = found.best, found.progress
        self._saved = (self.progress.epoch, self.progress.step)
        self.optimizer.load_state_dict(found.optimizer)
        log.info(
            "resumed in epoch %d, after step %d of %d", self.progress.epoch + 1, self.progress.step, self.plan.steps
        )

    def best_network(self) -> Network:
        """The averaged network with the weights of the best epoch."""
        self.average.network.load_state_dict(self.best)
        return self.average.network
