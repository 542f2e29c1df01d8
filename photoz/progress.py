"""Progress of long work on stderr: a bar with the time left on a terminal, a log line now and then elsewhere."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

log = logging.getLogger("photoz.progress")

LOG_EVERY_S = 10.0
console = Console(stderr=True)
_show_bars = False


def show_bars(yes: bool) -> None:
    """Show bars from now on, or log lines: bars are for a person at a terminal."""
    global _show_bars
    _show_bars = yes


def bars_shown() -> bool:
    """Whether stages show as bars."""
    return _show_bars


class Stage:
    """One stage of a job: counts units done and shows how long the rest will take."""

    def __init__(self, label: str, total: int, unit: str, bar: Progress | None, before: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self.before = before
        self._note = ""
        self._bar = bar
        self._task: TaskID | None = bar.add_task(label, total=total, completed=before, note="") if bar else None
        self._started = self._said = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        self.done += count
        self._show()

    def note(self, text: str) -> None:
        """Show `text` (loss, rate, …) beside the bar from now on."""
        self._note = text
        self._show()

    def _show(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, note=self._note)
            return
        now = time.monotonic()
        if now - self._said >= LOG_EVERY_S:
            self._said = now
            self._log()

    def seconds_left(self, elapsed_s: float) -> float | None:
        """Seconds that the rest will take, by what was done in `elapsed_s`; None where that says nothing."""
        here = self.done - self.before
        return elapsed_s / here * (self.total - self.done) if here > 0 and self.done < self.total else None

    def _log(self) -> None:
        left = self.seconds_left(time.monotonic() - self._started)
        left_text = "" if left is None else f", {left:.0f} s left"
        note = f" · {self._note}" if self._note else ""
        log.info("%s: %d of %d %s%s%s", self.label, self.done, self.total, self.unit, left_text, note)


@contextmanager
def stage(label: str, total: int, unit: str = "", before: int = 0) -> Iterator[Stage]:
    """Show a stage of `total` units while the block runs, of which `before` were done by an earlier run."""
    if not _show_bars:
        quiet = Stage(label, total, unit, None, before)
        started = time.monotonic()
        yield quiet
        note = f" · {quiet._note}" if quiet._note else ""
        done = quiet.done - before
        log.info("%s: %d %s in %.1f s%s", label, done, unit, time.monotonic() - started, note)
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeftColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Stage(label, total, unit, bar, before)
