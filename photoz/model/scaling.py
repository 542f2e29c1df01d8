"""How stored pixels become what a network sees: statistics of the training split, kept in model.json.

Legend: b image, c channel, h row, w column.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from photoz.errors import BadFormat, BadInput

LEVELS = 255.0  # of uint8 images
STRETCH_SOFTENING = 3.0  # in units of the pixel noise: the stretch is linear below, logarithmic above
_FLAT = 1e-6


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

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mean)

    @classmethod
    def of(cls, images_bchw: NDArray[np.generic]) -> "InputScaling":
        """Measure it on some training images. Raises BadInput for a channel without any signal."""
        pixels_cp = np.asarray(images_bchw).transpose(1, 0, 2, 3).reshape(images_bchw.shape[1], -1)
        dtype = str(images_bchw.dtype)
        if dtype == "uint8":
            sky, noise = np.zeros(len(pixels_cp)), np.full(len(pixels_cp), LEVELS)
        else:
            # The faint half of the pixels is mostly sky; galaxies would widen a scatter taken over all of them.
            sky = np.nanmedian(pixels_cp, axis=1)
            below_cp = np.where(pixels_cp <= sky[:, None], pixels_cp, np.nan)
            noise = 1.4826 * np.nanmedian(np.abs(below_cp - sky[:, None]), axis=1)
            noise = np.where(noise > 0, noise, np.maximum(np.nanstd(pixels_cp.astype(np.float64), axis=1), _FLAT))
        stretched_cp = stretch(pixels_cp.astype(np.float64), sky[:, None], noise[:, None], dtype)
        mean, std = np.nanmean(stretched_cp, axis=1), np.nanstd(stretched_cp, axis=1)
        if not (np.isfinite(std) & (std > _FLAT) & np.isfinite(noise)).all():
            empty = [index for index, value in enumerate(std) if not value > _FLAT]
            raise BadInput(f"channels {empty or 'with NaN'} of the training images hold one constant value; drop them")
        return cls(dtype, *(tuple(round(float(v), 8) for v in part) for part in (sky, noise, mean, std)))

    def to_json(self) -> dict[str, Any]:
        """The form in which model.json keeps it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "InputScaling":
        """Read it back."""
        try:
            parts = [tuple(map(float, found[name])) for name in ("sky", "noise", "mean", "std")]
            return cls(str(found["dtype"]), *parts)
        except (KeyError, TypeError, ValueError) as error:
            raise BadFormat(f"normalisation in model.json: {error}") from None


def stretch(pixels: NDArray[np.float64], sky: Any, noise: Any, dtype: str) -> NDArray[np.float64]:
    """Pixels on a scale fit for convolutions: levels as they are, fluxes through asinh (Lupton et al. 1999)."""
    signal = (pixels - sky) / noise
    return np.asarray(signal if dtype == "uint8" else np.arcsinh(signal / STRETCH_SOFTENING))
