"""Objects drawn through the seeing: GalSim's profiles in Fourier space, one inverse transform for all bands."""

from dataclasses import dataclass, replace
from functools import lru_cache

import galsim
import numpy as np
import numpy.typing as npt
import scipy.fft

Floats = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex128]

STAMP_SIZES = (24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
SEEING_CLASSES = 9
# Width of the seeing in each band relative to r (DR7 medians 1.53, 1.44, 1.32, 1.26, 1.29 arcsec in u to z).
BAND_SEEING = np.array([1.16, 1.09, 1.0, 0.955, 0.977])
# How much redder a bulge is than its disk, in magnitudes relative to r; and star-forming knots bluer than theirs.
BULGE_REDDENING = np.array([0.75, 0.40, 0.0, -0.12, -0.2])
KNOT_REDDENING = np.array([-0.6, -0.30, 0.0, 0.12, 0.2])
KNOTS, KNOT_SHARE = 40, 0.16


@dataclass(frozen=True)
class Profile:
    """One object to draw: position in the window's pixels, flux in each band drawn, and its shape."""

    x: float
    y: float
    flux: Floats
    point: bool = False
    r50_px: float = 0.0
    axis_ratio: float = 1.0
    angle: float = 0.0
    sersic: float = 1.0
    bulge: float = 1.0
    knots: int = 0  # seed of the star-forming knots along the arms; 0 for none


def seeing_fwhm_arcsec(seeing: int) -> float:
    """r-band FWHM of a seeing class 0 to 8: 1.1 to 1.6 arcsec, as over the survey's fields."""
    return 1.12 + 0.06 * seeing


@lru_cache(maxsize=256)
def seeing_transform(size: int, pixel_arcsec: float, seeing: int, bands: tuple[int, ...]) -> Floats:
    """Fourier transform, shape (bands, size, size // 2 + 1), of the point spread function with its pixel.

    Two Gaussians and a faint halo, the form fitted by the SDSS pipeline (Stoughton et al. 2002, section 4.3).
    """
    planes = []
    for band in bands:
        core = seeing_fwhm_arcsec(seeing) * BAND_SEEING[band] / 2.50
        psf = galsim.Gaussian(sigma=core, flux=0.70) + galsim.Gaussian(sigma=2.3 * core, flux=0.27)
        psf += galsim.Moffat(beta=2.5, fwhm=8 * core, flux=0.03)
        if pixel_arcsec > 0.5:  # coarser levels of the image pyramid average native pixels
            psf = galsim.Convolve(psf, galsim.Gaussian(sigma=0.8 * pixel_arcsec))
        planes.append(_transform(psf, size, pixel_arcsec).real)
    return np.stack(planes)


def _transform(profile: galsim.GSObject, size: int, pixel: float) -> Complexes:
    """k-space image of a centred profile in the layout of scipy.fft.irfft2 (frequencies of a size x size stamp)."""
    bounds = galsim.BoundsI(0, size // 2, -size // 2, size // 2 - 1)
    image = galsim.ImageCD(bounds)
    profile.drawKImage(image, scale=2 * np.pi / (size * pixel), recenter=False)
    return np.asarray(scipy.fft.ifftshift(image.array, axes=0), np.complex128)


@lru_cache(maxsize=16)
def _frequencies(size: int) -> tuple[Floats, Floats]:
    down, along = np.fft.fftfreq(size), np.fft.rfftfreq(size)
    return np.asarray(2 * np.pi * down, np.float64), np.asarray(2 * np.pi * along, np.float64)


def _sersic(index: float, profile: Profile) -> galsim.GSObject:
    shape: galsim.GSObject = galsim.Sersic(n=index, half_light_radius=max(profile.r50_px, 0.1))
    return shape.shear(q=max(profile.axis_ratio, 0.12), beta=profile.angle * galsim.radians)


def _gaussian(profile: Profile, size: int) -> Complexes:
    """The Sersic profile of index 0.5, without the cost of the general one."""
    ky, kx = _frequencies(size)
    sigma = profile.r50_px / 1.1774
    stretch = np.sqrt(profile.axis_ratio)
    cos, sin = np.cos(profile.angle), np.sin(profile.angle)
    along = (kx[None, :] * cos + ky[:, None] * sin) * (sigma / stretch)
    across = (ky[:, None] * cos - kx[None, :] * sin) * (sigma * stretch)
    return np.asarray(np.exp(-0.5 * (along**2 + across**2)), np.complex128)


def _knots(profile: Profile, size: int) -> Complexes:
    """Transform of unit flux in knots along two spiral arms of an exponential disk."""
    rng = np.random.default_rng(profile.knots)
    scale_px = profile.r50_px / 1.678
    radius = np.minimum(rng.gamma(2.0, 1.0, KNOTS), 4.5)
    pitch = 0.25 + 0.25 * rng.random()
    phase = np.log(radius + 0.05) / np.tan(pitch) * (1 if rng.random() < 0.5 else -1) + 2 * np.pi * rng.random()
    theta = phase + np.pi * rng.integers(0, 2, KNOTS) + 0.45 * rng.standard_normal(KNOTS)
    major = scale_px * radius * np.cos(theta)
    minor = scale_px * radius * np.sin(theta) * profile.axis_ratio
    x = major * np.cos(profile.angle) - minor * np.sin(profile.angle)
    y = major * np.sin(profile.angle) + minor * np.cos(profile.angle)
    weight = rng.gamma(1.0, 1.0, KNOTS)
    ky, kx = _frequencies(size)
    waves = np.exp(-1j * np.outer(ky, y)) * (weight / weight.sum())
    spread = np.exp(-0.5 * (0.3 * scale_px) ** 2 * (ky[:, None] ** 2 + kx[None, :] ** 2))
    return np.asarray((waves @ np.exp(-1j * np.outer(x, kx))) * spread, np.complex128)


def _tinted(share: float, reddening: Floats) -> Floats:
    """Share of the light in each band of a component that has `share` of it in r and this colour offset."""
    tint = share * 10 ** (-0.4 * reddening)
    return np.asarray(tint / (tint + 1 - share))


def _shape_transform(profile: Profile, size: int, bands: tuple[int, ...]) -> Complexes:
    """Unit-flux transform in each band, shape (bands or 1, size, size // 2 + 1), before the seeing."""
    if profile.sersic <= 0.5:
        return _gaussian(profile, size)[None]
    if profile.bulge >= 1:
        return _transform(_sersic(profile.sersic, profile), size, 1.0)[None]
    at = list(bands)
    bulge_share = _tinted(profile.bulge, BULGE_REDDENING[at])[:, None, None]
    rounder = replace(profile, r50_px=0.35 * profile.r50_px, axis_ratio=max(profile.axis_ratio, 0.6))
    bulge = _transform(_sersic(profile.sersic, rounder), size, 1.0)
    disk = _transform(_sersic(1.0, profile), size, 1.0)
    if not profile.knots:
        return np.asarray(bulge_share * bulge + (1 - bulge_share) * disk)
    knot_share = _tinted(KNOT_SHARE, KNOT_REDDENING[at])[:, None, None]
    arms = (1 - knot_share) * disk + knot_share * _knots(profile, size)
    return np.asarray(bulge_share * bulge + (1 - bulge_share) * arms)


def draw(canvas: Floats, profile: Profile, size: int, psf: Floats, bands: tuple[int, ...]) -> None:
    """Add an object to canvas (bands, height, width), in flux per pixel, on a stamp of `size` pixels."""
    column, row = round(profile.x), round(profile.y)
    x0, y0 = column - size // 2, row - size // 2
    height, width = canvas.shape[1:]
    if x0 >= width or y0 >= height or x0 + size <= 0 or y0 + size <= 0:
        return
    ky, kx = _frequencies(size)
    shift_y = np.exp(-1j * ky * (profile.y - y0))
    shift_x = np.exp(-1j * kx * (profile.x - x0))
    flux = profile.flux[:, None, None]
    waves = (flux * psf) * (shift_y[:, None] * shift_x[None, :])
    if not profile.point:
        waves *= _shape_transform(profile, size, bands)
    stamp = scipy.fft.irfft2(waves, s=(size, size))
    rows, columns = slice(max(y0, 0), min(y0 + size, height)), slice(max(x0, 0), min(x0 + size, width))
    canvas[:, rows, columns] += stamp[:, rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]
