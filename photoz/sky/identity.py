"""What decides the embedded sky's every byte, and the limits it puts on queries."""

from dataclasses import dataclass

DEFAULT_GALAXIES = 10_000
# Raise this whenever the same galaxies and seed would give other rows or pixels than before.
SKY_VERSION = 1

ROW_LIMIT = 500_000  # of a query's reply, as SkyServer documents
TIME_LIMIT_S = 600.0


@dataclass(frozen=True)
class SkyIdentity:
    """A sky: the same identity gives the same rows and the same cutouts, anywhere."""

    galaxies: int = DEFAULT_GALAXIES
    seed: int = 0
    version: int = SKY_VERSION
    simulated: bool = True
