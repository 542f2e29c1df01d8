"""How long to go on asking a server that fails: backoff with jitter within a stated budget, and a stop is obeyed."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from photoz.runtime import check_stop

_STOP_LOOK_S = 0.5


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

    budget_s: float = 120.0  # a call's, from its first failure-free moment on
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
