"""When and how long to retry a server that fails: one table of statuses, one backoff, one budget."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from photoz.runtime import check_stop, variable
from photoz.settings import parse_duration

TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses worth another try. No other one is."""

_USUAL_BUDGET_S = 120.0
_STOP_LOOK_S = 0.5


def usual_budget_s() -> float:
    """How long a call is retried: PHOTOZ_PATIENCE, else two minutes. Raises BadInput for what is no duration."""
    given = variable("PHOTOZ_PATIENCE")
    return parse_duration(given) if given else _USUAL_BUDGET_S


def wait(seconds: float) -> None:
    """Sleep, but wake for the scheduler's request to stop. Raises Preempted."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check_stop()
        time.sleep(min(left, _STOP_LOOK_S))
    check_stop()


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Times in seconds. The clocks, the sleep and the dice can be replaced in tests."""

    budget_s: float = field(default_factory=usual_budget_s)  # a call's, from its first failure on
    first_contact_s: float = 25.0  # a server that has never answered is more likely not there than busy
    longest_pause_s: float = 20.0
    connect_s: float = 10.0
    read_s: float = 20.0  # the longest silence; within the 25 s that a stop may take
    sleep: Callable[[float], None] = wait
    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time  # seconds since 1970
    draw: Callable[[], float] = field(default_factory=lambda: random.Random().random)

    def pause_s(self, attempt: int, retry_after_s: float | None) -> float:
        """The wait after failure number `attempt` (from 1): as the server asks, else exponential with jitter."""
        if retry_after_s is not None:
            return retry_after_s + self.draw()
        return (0.2 + 0.8 * self.draw()) * min(self.longest_pause_s, 0.25 * 2.0**attempt)


class Attempts:
    """The failures of one call, and the pause after each, until its budget is used up."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.restart()

    def restart(self) -> None:
        """Count from now on: something came in."""
        self.failures, self._began = 0, self._patience.now()

    @property
    def seconds(self) -> float:
        """Since the call began, or last came on."""
        return self._patience.now() - self._began

    def pause_s(self, retry_after_s: float | None, answered: bool) -> float | None:
        """The wait after one more failure; None if the budget does not hold it.

        A server that has never `answered` is more likely absent than busy, and is given less time.
        """
        patience = self._patience
        self.failures += 1
        pause_s = patience.pause_s(self.failures, retry_after_s)
        budget_s = patience.budget_s if answered else min(patience.budget_s, patience.first_contact_s)
        return None if self.seconds + pause_s > budget_s else pause_s


def retry_after_s(header: str | None, wall: float) -> float | None:
    """Seconds from a Retry-After header, a number or a date; None if there is none or it makes no sense."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    moment = http_date(header)
    return None if moment is None else max(0.0, moment - wall)


def http_date(header: str | None) -> float | None:
    """Seconds since 1970 of a header's date; None if there is none or it makes no sense."""
    try:
        return parsedate_to_datetime(header or "").timestamp()
    except (ValueError, OverflowError):
        return None
