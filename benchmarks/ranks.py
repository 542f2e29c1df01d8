"""Two ranks that train one network, a core each, beside two processes that train one each.

    python -m benchmarks.ranks [--rounds 20]

The same two processes do both by turns, a few steps each, for cores that are shared with others change their speed from
one second to the next. Ranks go in step, and so at the pace of whichever is slower in each step: what would be left if
nothing but that were lost is given, too, from the steps that the two took by themselves.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from benchmarks.computing import CPU, drawn, fresh
from benchmarks.ratios import Row, print_table
from photoz import runtime
from photoz.data.image_set import DecodedImages
from photoz.model.devices import keep_freed_memory
from photoz.model.names import APERTURE_CNN, MENKO2024, recipe_for
from photoz.runtime import World
from photoz.train import distributed
from photoz.train.launch import _free_port
from photoz.train.pixels import Pixels
from photoz.train.problem import Problem
from photoz.train.run import train
from photoz.train.sample import Labelled
from photoz.train.timing import StepClock

RANKS, STEPS = 2, 10
SIDES = {APERTURE_CNN: 64, MENKO2024: 128}
WAYS = ("alone", "together")
Seconds = NDArray[np.float64]  # of each step


class Watch(StepClock):
    """A clock that remembers when each step ended."""

    def start(self) -> None:
        """See StepClock."""
        super().start()
        self.ends: list[float] = []

    def lap(self, part: str) -> None:
        """See StepClock."""
        super().lap(part)
        if part == "rest":
            self.ends.append(time.monotonic())


@dataclass(frozen=True)
class Told:
    """What a rank is to do, and where the ranks meet."""

    model: str
    rounds: int
    port: int
    cores: tuple[int, ...]


def steps_of(way: str, rank: int, told: Told) -> Seconds:
    """Seconds of each step but the first of a short training, with a share of the batch by itself or with the other."""
    side_px = SIDES[told.model]
    world = World() if way == "alone" else World(rank, rank, RANKS, RANKS)
    usual = recipe_for(told.model, 8000)
    share = usual.batch_size // RANKS
    images, z = drawn(STEPS * share * world.size, side_px)
    recipe = replace(usual, epochs=1, batch_size=share * world.size)
    network, bins = fresh(told.model, side_px, recipe, images)
    few = DecodedImages(images.stored[:8], images.table[:8], images.image)
    parts = (Labelled(images, z), Labelled(few, z[:8]))
    pixels, val = (Pixels(part, CPU, network.context) for part in parts)
    problem, watch = Problem(pixels, val, bins, recipe, 0, CPU, world), Watch()
    state = problem.begin(network)
    dist.barrier()
    train(problem, state, clock=watch)
    return np.diff(watch.ends)


def take_part(rank: int, told: Told, results: "multiprocessing.Queue[tuple[int, dict[str, list[Seconds]]]]") -> None:
    """One of the two processes."""
    os.sched_setaffinity(0, {told.cores[rank]})
    torch.set_num_threads(1)
    keep_freed_memory()
    world = World(rank, rank, RANKS, RANKS)
    found: dict[str, list[Seconds]] = {way: [] for way in WAYS}
    with runtime.acting_as(world, told.port), distributed.joined(world, CPU, 600):
        for _ in range(told.rounds):
            for way in WAYS:
                found[way].append(steps_of(way, rank, told))
        distributed.wait_for_all(world)
    results.put((rank, found))


def rows(model: str, rounds: int) -> Iterator[Row]:
    """Lines of the table for a network."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    if len(cores) < RANKS:
        raise SystemExit(f"{len(cores)} cores: this wants {RANKS}, one a rank")
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[int, dict[str, list[Seconds]]]] = context.Queue()
    told = Told(model, rounds, _free_port(), cores)
    processes = [context.Process(target=take_part, args=(rank, told, results)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    by_rank = dict(results.get(timeout=3600) for _ in processes)
    for process in processes:
        process.join()
    found = {way: np.array([by_rank[rank][way] for rank in range(RANKS)]) for way in WAYS}  # rank, round, step

    def share(step_s: Seconds) -> str:
        """Of the two's speed by themselves, from a step's mean seconds in each round: in all, and the median."""
        alone = found["alone"].mean(2)  # rank, round
        by_round = (RANKS / step_s) / (1 / alone).sum(0)
        whole = (RANKS / step_s.mean()) / (1 / alone.mean(1)).sum()
        return f"{whole:.2f}, median {np.median(by_round):.2f}"

    step_ms = 1e3 * found["alone"].mean()
    title = (
        f"2 ranks, {model} {SIDES[model]}x{SIDES[model]}x3 ({step_ms:.0f} ms a step), of 2 independent processes' speed"
    )
    yield title, "0.95", "0.98", share(found["together"].mean(2).max(0))
    yield "the limit: if only the slower one's pace counted", "", "", share(found["alone"].max(0).mean(1))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f}")
    few = max(3, options.rounds // 7)  # its steps take some fifty times as long
    print_table([*rows(APERTURE_CNN, options.rounds), *rows(MENKO2024, few)])


if __name__ == "__main__":
    main()
