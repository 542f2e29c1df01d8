"""What decides the embedded sky's every byte."""

from dataclasses import dataclass

DEFAULT_GALAXIES = 10_000
# Raise this whenever the same galaxies and seed would give other rows or pixels than before.
SKY_VERSION = 1


@dataclass(frozen=True)
class SkyIdentity:
    """A sky: the same identity gives the same rows and the same cutouts, anywhere."""

    galaxies: int = DEFAULT_GALAXIES
    seed: int = 0
    version: int = SKY_VERSION
    simulated: bool = True
