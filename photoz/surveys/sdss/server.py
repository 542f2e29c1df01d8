"""Where an SDSS SkyServer is, and how fast it may be asked."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Server:
    """A SkyServer at `base_url`, its data release, and the rates at which it may be asked (None: no limit)."""

    base_url: str
    release: int = 17  # part of the paths below base_url
    queries_per_minute: float | None = None  # SQL
    requests_per_s: float | None = None  # cutouts
