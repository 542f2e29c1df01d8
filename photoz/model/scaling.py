"""How stored pixels become what a network sees: statistics of the training split, kept in model.json.

Legend: b image, c channel, h row, w column.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from photoz.errors import BadFormat, BadInput
from photoz.metrics import SIGMA_OF_MAD

LEVELS = 255.0  # of uint8 images
STRETCH_SOFTENING = 3.0  # in units of the pixel noise: the stretch is linear below, logarithmic above
_FLAT = 1e-6  # of a channel's own scale: float32 resolves a tenth of that
# Networks compute in float32, which rounds coarsely below 2^-126 (a GPU takes such numbers for 0) and ends at 2^128.
_LEAST_NOISE, _LARGEST_PIXEL = 2.0**-122, 2.0**126


@dataclass(frozen=True)
class InputScaling:
    """Per-channel statistics. For uint8, `sky` and `noise` are 0 and 255; for fluxes, median and robust scatter.

    `mean` and `std` are those of the stretched pixels (uint8: level / 255; fluxes: asinh of signal over noise).
    """

    MOST_IMAGES: ClassVar[int] = 2048  # are enough to measure it on

    dtype: str
    sky: tuple[float, ...]
    noise: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unit: str = ""  # of the pixels, where the images' files state one

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mean)

    @classmethod
    def of(cls, images_bchw: NDArray[np.generic]) -> "InputScaling":
        """Measure it on some training images; images times a factor give the same, times that factor.

        Raises BadInput for a channel without any signal, or beyond what float32 can hold.
        """
        measured = [_measured(plane_bhw, number) for number, plane_bhw in enumerate(images_bchw.swapaxes(0, 1))]
        sky, noise, mean, std = zip(*measured, strict=True)
        return cls(str(images_bchw.dtype), sky, noise, mean, std)

    def to_json(self) -> dict[str, Any]:
        """The form in which model.json keeps it."""
        known = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return known if self.unit else {key: value for key, value in known.items() if key != "unit"}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "InputScaling":
        """Read it back; BadFormat for numbers that no image can be divided by."""
        try:
            parts = {name: tuple(map(float, found[name])) for name in ("sky", "noise", "mean", "std")}
            read = cls(str(found["dtype"]), **parts, unit=str(found.get("unit", "")))
        except (KeyError, TypeError, ValueError) as error:
            raise BadFormat(f"normalisation in model.json: {error}") from None
        for name, values in parts.items():
            least = {"noise": _LEAST_NOISE, "std": _FLAT}.get(name, -_LARGEST_PIXEL)
            if not all(least <= value <= _LARGEST_PIXEL for value in values):
                raise BadFormat(
                    f"normalisation in model.json: {name} is {str(list(values))[:100]}, expected numbers from "
                    f"{least:.3g} to {_LARGEST_PIXEL:.3g}; train the model again"
                )
        return read


def _measured(pixels: NDArray[np.generic], channel: int) -> tuple[float, float, float, float]:
    """A channel's sky, noise, and the mean and std of its stretched pixels; NaN and infinite ones do not count."""
    values = pixels.astype(np.float64).ravel()
    values = values[np.isfinite(values)]
    where = f"channel {channel} of the training images"
    if not len(values):
        raise BadInput(f"{where} holds no finite value; drop it")
    sky, noise = 0.0, LEVELS
    if pixels.dtype != np.uint8:
        # The faint half of the pixels is mostly sky; galaxies would widen a scatter taken over all of them.
        sky = float(np.median(values))
        noise = SIGMA_OF_MAD * float(np.median(sky - values[values <= sky]))
        spread, largest = float(values.std()), float(np.abs(values).max())
        if spread <= _FLAT * largest:
            raise _flat(where, values)
        noise = noise or spread
        if noise < _LEAST_NOISE or largest > _LARGEST_PIXEL:
            raise BadInput(
                f"{where} has values up to {largest:.3g} and a noise of {noise:.3g}, too large or small for float32: "
                f"expected at most {_LARGEST_PIXEL:.3g}, at least {_LEAST_NOISE:.3g}; multiply the images by a constant"
            )
    stretched = stretch(values, sky, noise, str(pixels.dtype))
    mean, std = float(stretched.mean()), float(stretched.std())
    if std <= _FLAT:
        raise _flat(where, values)
    return sky, noise, mean, std


def _flat(where: str, values: NDArray[np.float64]) -> BadInput:
    lowest, highest = float(values.min()), float(values.max())
    if lowest == highest:
        return BadInput(f"{where} holds one constant value, {lowest:g}; drop it")
    return BadInput(
        f"{where} varies by only {values.std():.3g} on {np.abs(values).max():.3g}; subtract the sky first, or drop it"
    )


def stretch(pixels: NDArray[np.float64], sky: Any, noise: Any, dtype: str) -> NDArray[np.float64]:
    """Pixels on a scale fit for convolutions: levels as they are, fluxes through asinh (Lupton et al. 1999)."""
    signal = (pixels - sky) / noise
    return np.asarray(signal if dtype == "uint8" else np.arcsinh(signal / STRETCH_SOFTENING))
