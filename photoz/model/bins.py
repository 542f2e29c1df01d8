"""Redshift bins: where a predicted PDF can put its mass. Fixed when training starts, kept in model.json."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz.errors import BadFormat, BadInput

Floats = NDArray[np.float64]

MARGIN = 0.05  # of the training range in log(1 + z), left free at either end


@dataclass(frozen=True)
class RedshiftBins:
    """`count` bins of equal width in log(1 + z) between redshifts `low` and `high`."""

    low: float
    high: float
    count: int

    def __post_init__(self) -> None:
        if not -0.5 < self.low < self.high < 1e4 or self.count < 2:
            raise BadInput(
                f"redshift bins: {self.count} from z {self.low} to {self.high}: expected 2 or more, ascending"
            )

    @classmethod
    def covering(cls, z_spec: Floats, count: int) -> "RedshiftBins":
        """Bins over the range of `z_spec` and a margin. They start at 0 or above unless a redshift is negative."""
        logs = np.log1p(z_spec)
        first, last = float(logs.min()), float(logs.max())
        margin = MARGIN * max(last - first, 0.01)
        low = min(max(first - margin, 0.0), first)
        return cls(float(np.expm1(low)), float(np.expm1(last + margin)), count)

    @property
    def log_edges(self) -> Floats:
        """Bin edges in log(1 + z), (count + 1,)."""
        return np.linspace(np.log1p(self.low), np.log1p(self.high), self.count + 1)

    @property
    def edges(self) -> Floats:
        """Bin edges in redshift, (count + 1,)."""
        return np.expm1(self.log_edges)

    @property
    def log_width(self) -> float:
        """Width of a bin in log(1 + z)."""
        return float(np.log1p(self.high) - np.log1p(self.low)) / self.count

    def to_json(self) -> dict[str, Any]:
        """The form in which model.json keeps it."""
        return {"uniform_in": "log(1+z)", "low": self.low, "high": self.high, "count": self.count}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "RedshiftBins":
        """Read it back; BadFormat if it is of another kind."""
        if found.get("uniform_in") != "log(1+z)":
            raise BadFormat(f"redshift bins uniform in {found.get('uniform_in')!r}: expected log(1+z)")
        try:
            return cls(float(found["low"]), float(found["high"]), int(found["count"]))
        except (KeyError, TypeError, ValueError, BadInput) as error:
            raise BadFormat(f"redshift bins in model.json: {error}") from None
