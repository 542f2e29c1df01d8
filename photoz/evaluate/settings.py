"""What `photoz-job evaluate` can be told."""

from dataclasses import dataclass

from photoz.errors import BadInput
from photoz.settings import setting


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How predictions are scored and shown."""

    bootstrap: int = setting(200, "Bootstrap resamples behind each error.")
    seed: int = setting(0, "Seed of the resampling.")
    gallery: int = setting(10, "Galaxies in each gallery (best and worst); 0 for none.")

    def __post_init__(self) -> None:
        if not 10 <= self.bootstrap <= 100_000:
            raise BadInput(f"--bootstrap {self.bootstrap}: expected 10 to 100,000 resamples")
        if not 0 <= self.gallery <= 200:
            raise BadInput(f"--gallery {self.gallery}: expected 0 to 200 galaxies")
        if self.seed < 0:
            raise BadInput(f"--seed {self.seed}: expected 0 or more")
