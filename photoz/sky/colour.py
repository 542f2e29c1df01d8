"""SkyServer's colour composite: i, r, g to red, green, blue through an asinh stretch, 8 bits."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Floats = npt.NDArray[np.float64]

# i, r and g per nanomaggie of a native pixel, and the softening: the form of Lupton et al. (2004), PASP 116, 133,
# with scales in nearly the proportions that Wherry, Blanton & Hogg chose for SDSS (4.9 : 5.7 : 7.8). The overall
# level, the softening and the width of the resampling that the frames went through reproduce the sky level, sky
# noise, its correlation, source counts and brightness profiles of cutouts that SkyServer returned
# (docs/design/embedded-sky.md).
SCALES_IRG = np.array([2.25, 2.85, 4.3])
SOFTENING = 7.0
RESAMPLING_SIGMA_PX = 0.7


def composite(irg_nmgy: Floats) -> Floats:
    """RGB levels 0 to 255 (float, whole numbers), shape (3, h, w), of i, r, g fluxes per native pixel.

    Pixels that would overflow keep their hue, as in Lupton et al. (2004).
    """
    resampled = gaussian_filter(irg_nmgy, (0, RESAMPLING_SIGMA_PX, RESAMPLING_SIGMA_PX), truncate=3.0)
    scaled = np.maximum(resampled, 0) * SCALES_IRG[:, None, None]
    intensity = scaled.mean(axis=0)
    stretched = np.arcsinh(SOFTENING * intensity) / SOFTENING
    rgb = scaled * (stretched / np.maximum(intensity, 1e-6))
    brightest = rgb.max(axis=0)
    rgb /= np.maximum(brightest, 1.0)
    return np.asarray(np.rint(rgb * 255.0))
