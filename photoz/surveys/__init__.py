"""Where galaxies come from: SkyServer's SQL and cutouts, real or embedded, and users' own tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from photoz.errors import BadInput, did_you_mean

EMBEDDED, SDSS, TABLE = "embedded", "sdss-dr17", "table"
SURVEYS = (EMBEDDED, SDSS, TABLE)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A survey that answers at `base_url`, and the rates at which it may be asked (None: no limit)."""

    name: str
    base_url: str
    simulated: bool
    release: int = 17  # SDSS data release, part of the paths below base_url
    queries_per_minute: float | None = None  # SQL
    requests_per_s_limit: float | None = None  # cutouts


def survey_identity(name: str, url: str | None = None) -> dict[str, Any]:
    """What decides a survey's content, for fingerprints; the embedded sky's size, seed and version included."""
    if name != EMBEDDED:
        return {"name": name}
    from photoz.sky import sky_identity

    return {"name": name, **sky_identity(url)}


@contextmanager
def open_survey(name: str, url: str | None = None) -> Iterator[Survey]:
    """A survey ready to be asked. `embedded` without `url` runs its own server until the block is left.

    Raises BadInput for a name that has no server.
    """
    if name == SDSS:
        # 60 queries a minute are documented; the rate of cutouts is our own choice, not to be a burden.
        yield Survey(
            name=name,
            base_url=(url or "https://skyserver.sdss.org").rstrip("/"),
            simulated=False,
            queries_per_minute=60,
            requests_per_s_limit=20,
        )
    elif name == EMBEDDED and url is not None:
        yield Survey(name=name, base_url=url.rstrip("/"), simulated=True)
    elif name == EMBEDDED:
        from photoz.sky import open_embedded_sky

        with open_embedded_sky() as base_url:
            yield Survey(name=name, base_url=base_url, simulated=True)
    else:
        close = did_you_mean(name, (EMBEDDED, SDSS))
        raise BadInput(f"--survey {name}: no survey of that name with a server; expected {EMBEDDED} or {SDSS}{close}")
