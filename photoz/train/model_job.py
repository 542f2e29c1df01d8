"""Making a model artifact: read the shards, train, calibrate, publish."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from photoz import runtime
from photoz.artifacts import Artifact, Destination, Draft, Outcome
from photoz.artifacts.parquet import parquet_bytes
from photoz.data import ShardSet, open_shards
from photoz.data.batches import fits_on
from photoz.model.bins import RedshiftBins
from photoz.model.devices import choose_device, describe_device, keep_freed_memory
from photoz.model.names import Recipe
from photoz.model.redshift_model import RedshiftModel
from photoz.model.registry import ImageShape, build_network, design
from photoz.model.saved import model_files
from photoz.model.scaling import InputScaling
from photoz.settings import parse_duration
from photoz.train import distributed
from photoz.train.card import write_card
from photoz.train.checkpoints import Checkpoints, shelf_for
from photoz.train.finish import Blueprint, finish
from photoz.train.launch import ranks_on_this_machine
from photoz.train.pixels import Pixels
from photoz.train.problem import Problem
from photoz.train.run import Rules, train
from photoz.train.sample import check_splits, load_labelled, shuffled
from photoz.train.settings import RECIPE, TrainSettings
from photoz.train.state import Checkpoint, State
from photoz.train.tracking import Report, Tracked, tracked
from photoz.train.validation import CRITERION, Validation

log = logging.getLogger("photoz.train")

_PIECE = "model"
_PREPARE_IMAGES = 2048


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers up to `count`, at equal distances."""
    return np.arange(0, count, -(-count // most))


def make_model(shards: Artifact, settings: TrainSettings, dest: Destination) -> Outcome:
    """Train with as many processes as asked for; see photoz.train.train_model."""
    source = open_shards(shards)
    check_splits(source)
    recipe = settings.recipe(source.count("train"))
    with ranks_on_this_machine(shards, settings, dest) as world:
        device = choose_device(settings.device, world.local_rank)
        log.info("computing on %s", describe_device(device, _threads(world)))
        decides = settings.decide(recipe, world.size, device.type)
        with Draft.begin(dest, kind="model", recipe=RECIPE, settings=decides, inputs=[shards]) as draft:
            if draft.published:
                return draft.published
            if draft.todo([_PIECE]):
                with distributed.joined(world, device, parse_duration(settings.rank_timeout)):
                    # Only rank 0 keeps checkpoints: a local folder of another machine may not even be there.
                    folder = settings.checkpoints if world.rank == 0 else None
                    kept = Checkpoints(shelf_for(draft, folder, anew=dest.force))
                    told = Tracked(dest.name, draft.fingerprint, _in_one(decides) | {"shards": str(shards.ref)})
                    with tracked(told if world.rank == 0 else None) as report:
                        task = _Task(source, settings, recipe, world, device, dest.name)
                        _make(task, _rules(settings, report), draft, kept)
            if world.rank > 0:
                return draft.partial()
            if not draft.finish_slice():
                return draft.partial()
            return draft.commit(draft.receipts()[0].facts)


def _threads(world: runtime.World) -> int:
    return max(1, runtime.usable_cores() // world.local_size)


def _in_one(decides: dict[str, Any]) -> dict[str, Any]:
    """The settings without levels, for people."""
    return {name: value for name, value in (decides | decides["recipe"]).items() if name != "recipe"}


@dataclass(frozen=True)
class _Task:
    source: ShardSet
    settings: TrainSettings
    recipe: Recipe
    world: runtime.World
    device: torch.device
    name: str


def _rules(settings: TrainSettings, report: Report) -> Rules:
    return Rules(
        save_every_s=parse_duration(settings.checkpoint_every),
        micro_batch=settings.micro_batch,
        report=report,
    )


def _make(task: _Task, rules: Rules, draft: Draft, kept: Checkpoints) -> None:
    source, settings, world, device = task.source, task.settings, task.world, task.device
    torch.set_num_threads(_threads(world))
    if device.type == "cpu":
        keep_freed_memory()
    resident = fits_on(device, (source.count("train") + source.count("val")) * source.image.image_bytes)
    train_set, val_set = (
        load_labelled(source, split, settings.decoded, device if resident else None) for split in ("train", "val")
    )
    if settings.shuffle_labels:
        train_set, val_set = shuffled(train_set, settings.seed), shuffled(val_set, settings.seed)
    bins = RedshiftBins.covering(train_set.z_spec, settings.bins)
    some = evenly(len(train_set), InputScaling.MOST_IMAGES)
    scaling = replace(
        InputScaling.of(Pixels(train_set, device, ()).take(some)[0].images_bchw.cpu().numpy()), unit=source.image.unit
    )
    image = ImageShape(source.image.channels, source.image.height, source.image.width)
    blueprint = Blueprint(settings.model, design(settings.model, image, bins, task.recipe), image, scaling)
    torch.manual_seed(settings.seed)
    network = build_network(blueprint.name, blueprint.sizes, scaling)
    pixels, val_pixels = (Pixels(labelled, device, network.context) for labelled in (train_set, val_set))
    problem = Problem(pixels, val_pixels, bins, task.recipe, settings.seed, device, world)
    network.to(device).prepare(pixels.take(np.arange(min(len(pixels), _PREPARE_IMAGES)))[0])
    log.info("Galactic reddening E(B-V): %s", "an input" if "ebv" in network.used_context else "not used")
    state = problem.begin(network)
    saved = kept.newest(lambda data: Checkpoint.decode(data, device).check_fit(network)) if world.rank == 0 else None
    saved = distributed.from_first(saved, world, device)
    if saved is not None:
        state.restore(Checkpoint.decode(saved, device))
        at = state.progress
        log.info("resumed in epoch %d, after step %d of %d", at.epoch + 1, at.step, problem.plan.steps)
    train(problem, state, rules, lambda found: kept.save(found.progress.steps_done, found.encode()))
    finished = finish(blueprint, state.best_network() if world.rank == 0 else state.network, problem)
    if finished is not None:
        _publish(task, problem, state, *finished, draft)
        kept.clear()
    distributed.wait_for_all(world)


def _publish(task: _Task, problem: Problem, state: State, model: RedshiftModel, val: Validation, draft: Draft) -> None:
    shards, settings, at = task.source.artifact, task.settings, state.progress
    counts = {"train": len(problem.train), "val": len(problem.val)}
    facts = {
        "best_epoch": at.best_epoch,
        "criterion": CRITERION[model.recipe.head],
        "seed": settings.seed,
        "world": problem.world.size,
        "device": problem.device.type,
        "shuffled_labels": settings.shuffle_labels,
        "computed_on": describe_device(problem.device, _threads(problem.world)),
    }
    files = model_files(model) | {"history.parquet": parquet_bytes(pa.Table.from_pylist(at.history))}
    entries = [draft.put(name, data) for name, data in files.items()]
    # Volatile: the card names the machine's device and driver, which are no part of what makes the model.
    card = write_card(model, shards, counts, val, facts | {"name": task.name, "fingerprint": draft.fingerprint})
    entries.append(draft.put("card.md", card.encode(), volatile=True))
    entries.append(
        draft.put(
            "timings.parquet", parquet_bytes(pa.Table.from_pylist(at.timings)), rows=len(at.timings), volatile=True
        )
    )
    metrics = {name: value for name, value in val.columns().items() if name != "val_loss"}
    about = {"model": model.name, "image": str(model.image), "galaxies": counts, "redshift_bins": model.bins.to_json()}
    simulated = bool(shards.summary.get("simulated"))
    draft.finish_piece(_PIECE, entries, about | facts | {"simulated": simulated, "validation": metrics})
    kept = f"{at.best_epoch} of {model.recipe.epochs}, the least {facts['criterion']}"
    log.info("kept epoch %s: val sigma_mad %.4f, CRPS %.4f", kept, val.sigma_mad, val.crps or float("nan"))
