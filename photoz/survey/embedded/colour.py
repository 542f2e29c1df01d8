"""SkyServer's colour composite: i, r, g to red, green, blue through an asinh stretch, 8 bits."""

import numpy as np
import numpy.typing as npt

# Relative scales of i, r and g and the softening after Lupton et al. (2004), PASP 116, 133, and Wherry, Blanton &
# Hogg's settings for SDSS; the overall scale and the softening are fitted to cutouts that SkyServer returned
# (docs/design/embedded-sky.md).
SCALES_IRG = np.array([4.9, 5.7, 7.8], np.float32) * np.float32(0.2)
SOFTENING = np.float32(8.0)


def composite(irg_nmgy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """RGB levels 0 to 255 (float, whole numbers), shape (3, h, w), of i, r, g fluxes per native pixel.

    Pixels that would overflow keep their hue, as in Lupton et al. (2004).
    """
    scaled = np.maximum(irg_nmgy, 0) * SCALES_IRG[:, None, None]
    intensity = scaled.mean(axis=0)
    stretched = np.arcsinh(SOFTENING * intensity) / SOFTENING
    rgb = scaled * (stretched / np.maximum(intensity, 1e-6))
    brightest = rgb.max(axis=0)
    rgb /= np.maximum(brightest, 1.0)
    return np.asarray(np.rint(rgb * 255.0), np.float32)
