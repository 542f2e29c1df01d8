"""TensorBoard and MLflow follow a training where they are installed and set up by their own variables."""

import importlib.util
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from photoz.errors import Preempted

log = logging.getLogger("photoz.train")

_CLOSE_WITHIN_S = 5.0  # a preempted job has 25 s in all

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Tracked:
    """What a run is called, what makes it the same run when it is taken up again, and how it was asked for."""

    name: str
    fingerprint: str
    settings: Mapping[str, Any]


class _Tracker(Protocol):
    def epoch(self, number: int, values: dict[str, float]) -> None: ...
    def close(self, how: str) -> None: ...


class _TensorBoard:
    """Event files in a folder of the run's own; a run that is taken up again goes on in it."""

    def __init__(self, run: Tracked) -> None:
        self._folder = Path(os.environ["TENSORBOARD_LOGGING_DIR"]) / f"{run.name}-{run.fingerprint[:8]}"
        self._writer: Any = None

    def epoch(self, number: int, values: dict[str, float]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(self._folder, purge_step=number)
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self, how: str) -> None:
        if self._writer is not None:
            self._writer.close()


class _MLflow:
    """A run of the experiment that MLflow's variables name; a run that is taken up again goes on in the same one."""

    def __init__(self, run: Tracked) -> None:
        self._run, self._started = run, False

    def _start(self) -> None:
        import mlflow

        mine = {"photoz.fingerprint": self._run.fingerprint}
        known = None
        if "MLFLOW_RUN_ID" not in os.environ:
            where = f"tags.`photoz.fingerprint` = '{self._run.fingerprint}'"
            found = mlflow.search_runs(filter_string=where, max_results=1, output_format="list")
            known = found[0].info.run_id if found else None
        mlflow.start_run(run_id=known, run_name=self._run.name, tags=mine)
        if known is None:
            mlflow.log_params(dict(self._run.settings))
        self._started = True

    def epoch(self, number: int, values: dict[str, float]) -> None:
        import mlflow

        if not self._started:
            self._start()
        mlflow.log_metrics(values, step=number)

    def close(self, how: str) -> None:
        import mlflow

        if self._started:
            mlflow.end_run(how)


_KNOWN: dict[str, tuple[str, str, type[_TensorBoard] | type[_MLflow]]] = {
    "TensorBoard": ("tensorboard", "TENSORBOARD_LOGGING_DIR", _TensorBoard),
    "MLflow": ("mlflow", "MLFLOW_TRACKING_URI", _MLflow),
}


@contextmanager
def tracked(run: Tracked | None) -> Iterator[Report]:
    """Give a function that takes an epoch's row of the history; without a run, one that does nothing.

    Each tracker has a thread of its own, so training never waits for a server. One that fails is left alone after one
    warning: what it would have shown is in the model's history all the same.
    """
    threads = []
    for name, (package, variable, kind) in _KNOWN.items():
        if run and os.environ.get(variable):
            if importlib.util.find_spec(package):
                threads.append(_Thread(name, kind(run)))
            else:
                log.warning("%s is set, but %s is not installed here: pip install %s", variable, name, package)

    def report(row: Mapping[str, Any]) -> None:
        values = {name: float(value) for name, value in row.items() if name != "epoch" and _is_number(value)}
        for thread in threads:
            thread.tell(int(row["epoch"]), values)

    how = "FAILED"
    try:
        yield report
        how = "FINISHED"
    except Preempted:
        how = "KILLED"
        raise
    finally:
        until = time.monotonic() + _CLOSE_WITHIN_S
        for thread in threads:
            thread.end(how)
        for thread in threads:
            thread.wait(until)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


class _Thread:
    """Tells one tracker, in order, until it fails."""

    def __init__(self, name: str, tracker: _Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._rows: queue.SimpleQueue[tuple[int, dict[str, float]] | str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def tell(self, number: int, values: dict[str, float]) -> None:
        self._rows.put((number, values))

    def end(self, how: str) -> None:
        self._rows.put(how)

    def wait(self, until: float) -> None:
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            log.warning("%s has not taken everything within %.0f s", self._name, _CLOSE_WITHIN_S)

    def _run(self) -> None:
        try:
            while not isinstance(said := self._rows.get(), str):
                self._tracker.epoch(*said)
            self._tracker.close(said)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong there, training goes on
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.warning("%s: %s; training goes on without it", self._name, reason)
