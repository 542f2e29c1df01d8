"""Ratios of ways to do one thing, taken in one run: alternated, so that a machine that slows down does not decide."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

ROUNDS = 5
Row = tuple[str, str, str, str]  # figure, limit, goal, found


@dataclass(frozen=True)
class Cost:
    """Seconds of one go: on the clock, and of CPU in this process with all its threads."""

    wall: float
    cpu: float


def cost(work: Callable[[], object]) -> Cost:
    """What one go takes."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - started, time.process_time() - cpu)


def alternated(ways: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, list[Cost]]:
    """Costs of each way in each round; a first go of each is not counted."""
    for work in ways.values():
        work()
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            found[name].append(cost(work))
    return found


def ratio(of: list[Cost], to: list[Cost], what: Callable[[Cost], float] = lambda one: one.wall) -> float:
    """The median over rounds of one way's cost over another's of the same round."""
    return statistics.median(what(mine) / what(other) for mine, other in zip(of, to, strict=True))


def print_table(rows: Iterable[Row], columns: Row = ("figure", "limit", "goal", "found")) -> None:
    """Print a Markdown table."""
    print(f"\n| {' | '.join(columns)} |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
