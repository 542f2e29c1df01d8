"""Faults that a survey's server is known to have, injected at chosen rates: `429:0.1,reset:0.01,slow:0.02`."""

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field

from photoz.errors import BadInput

KINDS = {
    "429": "too many requests, with Retry-After: 1",
    "500": "internal server error",
    "503": "service unavailable, with Retry-After: 1",
    "reset": "connection reset before the reply",
    "truncate": "half of the body, then the connection closes",
    "html200": "SkyServer's error page with status 200",
    "corrupt": "bytes of the body overwritten",
    "slow": "the reply waits for 3 seconds",
    "timeout": "no reply, until the client leaves or for 120 seconds",
    "length": "half of the body, with a Content-Length that agrees",
    "403": "refused",
}
SLOW_S = 3.0
SILENT_S = 120.0
RETRY_AFTER_S = 1


@dataclass
class Faults:
    """Which requests fail and how. A request's n-th attempt always has the same fate, in whatever order they come."""

    rates: dict[str, float]
    seed: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    _attempts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_for(self, request: str) -> str | None:
        """The fault of this attempt at a request, or None."""
        if not self.rates:
            return None
        with self._lock:
            self._attempts[request] += 1
            attempt = self._attempts[request]
        chance = int.from_bytes(_digest(f"{self.seed}/{attempt}/{request}")) / 2**64
        for kind, rate in self.rates.items():
            if chance < rate:
                with self._lock:
                    self.injected[kind] += 1
                return kind
            chance -= rate
        return None


def parse_faults(spec: str, seed: int = 0) -> Faults:
    """Faults of a comma-separated list of kind:rate; rates are shares of requests. Raises BadInput."""
    rates: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in spec.split(","))):
        kind, _, rate = item.partition(":")
        if kind not in KINDS:
            raise BadInput(f"--faults {item}: no fault of the name {kind!r}; expected one of {', '.join(KINDS)}")
        try:
            rates[kind] = float(rate)
        except ValueError:
            raise BadInput(
                f"--faults {item}: expected kind:rate with a rate from 0 to 1, such as {kind}:0.05"
            ) from None
        if not 0 <= rates[kind] <= 1:
            raise BadInput(f"--faults {item}: the rate {rate} is not between 0 and 1")
    if sum(rates.values()) > 1:
        raise BadInput(f"--faults {spec}: the rates add up to {sum(rates.values()):g}; expected at most 1")
    return Faults(rates, seed)


def corrupted(body: bytes, request: str) -> bytes:
    """The body with a run of its bytes overwritten, from the middle on."""
    start = len(body) // 3
    length = max(1, len(body) // 4)
    noise = _digest(request)
    return body[:start] + (noise * (length // 8 + 1))[:length] + body[start + length :]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
