"""Cutouts of the embedded sky: objects and noise on the survey's pixel grid, resampled as SkyServer does."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

from photoz.sky.colour import composite
from photoz.sky.field_objects import FieldObjects, cells_around, field_objects
from photoz.sky.galaxies import GALAXY, SkyObjects
from photoz.sky.morphology import Shapes
from photoz.sky.noise import hash_of, unit_noise
from photoz.sky.photometry import ELECTRONS_PER_NMGY, SKY_NOISE_NMGY
from photoz.sky.profiles import STAMP_SIZES, Profile, draw, seeing_transform
from photoz.sky.request import NATIVE_SCALE_ARCSEC, Cutout
from photoz.sky.stripes import field_address, north_angle, stripe_position, unit_vectors

Floats = npt.NDArray[np.float64]

JPEG_QUALITY = 75
SIMULATED = b"simulated by photoz embedded sky"
_REACH_DEG = 90 / 3600  # how far outside a frame a bright galaxy's light still matters
_FIELD_REACH_DEG = 12 / 3600
# Faintest r of the field objects drawn at each pyramid level; coarser levels show catalogued objects only.
_FIELD_LIMITS_R = (24.0, 22.5, 21.0, 19.0)
_IRG = (3, 2, 1)
_UGRIZ = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class _Window:
    """The patch of a stripe's pixel grid that covers a cutout, and the way from cutout pixels to it."""

    key: int  # of the noise grid: seed, stripe and pyramid level
    pixel_arcsec: float
    x0: int
    y0: int
    width: int
    height: int
    centre_x: float  # the cutout's centre in window pixels
    centre_y: float
    turn: float  # radians from east-north to the grid's axes
    seeing: int
    noise: float  # this run's sky noise relative to the survey's median


class Renderer:
    """Draws any position of the sky. Deterministic: the same request gives the same bytes in any process."""

    def __init__(self, objects: SkyObjects, shapes: Shapes, seed: int) -> None:
        self._objects, self._shapes, self._seed = objects, shapes, seed
        self._tree = cKDTree(unit_vectors(objects.ra, objects.dec))
        self._reach_arcsec = light_radius_arcsec(
            objects.flux[:, 2], shapes.r50_arcsec, np.where(shapes.early, shapes.sersic, 1.0), 0.04
        )
        self._reach_arcsec[objects.kind != GALAXY] = star_radius_arcsec(objects.flux[objects.kind != GALAXY, 2])

    def jpeg(self, cutout: Cutout) -> bytes:
        """JPEG bytes as getjpeg returns them: quality 75, 4:2:0, north up, east left."""
        if not cutout.in_footprint:
            return encode(_off_footprint(cutout))
        level = pyramid_level(cutout.scale)
        window = self._window(cutout, level)
        levels = composite(self._sky(window, cutout, _IRG) / 4**level)
        rgb = np.clip(np.rint(_resample(levels, window, cutout)), 0, 255).astype(np.uint8)
        return encode(np.ascontiguousarray(np.moveaxis(rgb, 0, 2)))

    def ugriz(self, cutout: Cutout) -> Floats:
        """Five-band stamp (5, height, width), nanomaggies per native pixel, u g r i z."""
        level = pyramid_level(cutout.scale)
        window = self._window(cutout, level)
        return _resample(self._sky(window, cutout, _UGRIZ) / 4**level, window, cutout)

    def _window(self, cutout: Cutout, level: int) -> _Window:
        position = stripe_position(cutout.ra, cutout.dec)
        stripe = int(position.stripe)
        pixel = NATIVE_SCALE_ARCSEC * 2**level
        turn = north_angle(cutout.ra, cutout.dec, stripe)
        x, y = float(position.mu) * 3600 / pixel, float(position.nu) * 3600 / pixel
        half_w, half_h = 0.5 * cutout.width * cutout.scale / pixel, 0.5 * cutout.height * cutout.scale / pixel
        reach_x = abs(half_w * np.cos(turn)) + abs(half_h * np.sin(turn)) + 4
        reach_y = abs(half_w * np.sin(turn)) + abs(half_h * np.cos(turn)) + 4
        x0, y0 = int(np.floor(x - reach_x)), int(np.floor(y - reach_y))
        run = hash_of(self._seed, int(field_address(position).run))
        return _Window(
            key=hash_of(self._seed, stripe, level),
            pixel_arcsec=pixel,
            x0=x0,
            y0=y0,
            width=int(np.ceil(x + reach_x)) - x0 + 1,
            height=int(np.ceil(y + reach_y)) - y0 + 1,
            centre_x=x - x0,
            centre_y=y - y0,
            turn=turn,
            seeing=(run & 3) + (run >> 2 & 3) + (run >> 4 & 1) + (run >> 5 & 1),
            noise=1.0 + 0.06 * ((run >> 8 & 0xFF) / 127.5 - 1),
        )

    def _sky(self, window: _Window, cutout: Cutout, bands: tuple[int, ...]) -> Floats:
        """Objects and noise on the window, shape (bands, height, width), nanomaggies per window pixel."""
        canvas = np.zeros((len(bands), window.height, window.width))
        radius = 0.5 * float(np.hypot(cutout.width, cutout.height)) * cutout.scale / 3600
        self._draw_catalogue(canvas, window, cutout, radius, bands)
        level = pyramid_level(cutout.scale)
        if level < len(_FIELD_LIMITS_R):
            for band, number in cells_around(cutout.ra, cutout.dec, radius + _FIELD_REACH_DEG):
                objects = field_objects(self._seed, band, number)
                _draw_field(canvas, window, cutout, objects.brighter_than(_FIELD_LIMITS_R[level]), bands)
        at = list(bands)
        # A window pixel of pyramid level l holds 4^l native ones, so its noise is 2^l times theirs.
        sky = SKY_NOISE_NMGY[at] * window.noise * window.pixel_arcsec / NATIVE_SCALE_ARCSEC
        shot = np.maximum(canvas, 0) / ELECTRONS_PER_NMGY[at][:, None, None]
        sigma = np.sqrt(sky[:, None, None] ** 2 + shot)
        deviates = unit_noise(window.key, window.x0, window.y0, (window.height, window.width))
        if len(bands) > 4:
            more = unit_noise(window.key ^ 0x5DEECE66D, window.x0, window.y0, (window.height, window.width))
            deviates = np.concatenate([more[:1], deviates])
        # The lanes are g r i z (and u from the second hash), whichever bands are drawn.
        lanes = at if len(bands) > 4 else [band - 1 for band in bands]
        return np.asarray(canvas + sigma * deviates[lanes])

    def _draw_catalogue(
        self, canvas: Floats, window: _Window, cutout: Cutout, radius: float, bands: tuple[int, ...]
    ) -> None:
        centre = unit_vectors(cutout.ra, cutout.dec)
        chord = 2 * np.sin(np.radians(min(radius + _REACH_DEG, 180.0)) / 2)
        rows = np.sort(np.asarray(self._tree.query_ball_point(centre, chord), np.int64))
        x, y = _window_pixels(window, cutout, self._objects.ra[rows], self._objects.dec[rows])
        for row, at_x, at_y in zip(rows.tolist(), x.tolist(), y.tolist(), strict=True):
            size = _stamp_size(self._reach_arcsec[row] / window.pixel_arcsec)
            profile = Profile(
                x=at_x,
                y=at_y,
                flux=self._objects.flux[row, list(bands)],
                point=bool(self._objects.kind[row] != GALAXY),
                r50_px=float(self._shapes.r50_arcsec[row]) / window.pixel_arcsec,
                axis_ratio=float(self._shapes.axis_ratio[row]),
                angle=float(self._shapes.angle[row]) + window.turn,
                sersic=float(self._shapes.sersic[row]),
                bulge=float(self._shapes.bulge[row]),
                knots=0 if self._shapes.early[row] else 1 + hash_of(self._seed, row) % 2**32,
            )
            draw(canvas, profile, size, seeing_transform(size, window.pixel_arcsec, window.seeing, bands), bands)


def encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    """JPEG bytes with a comment that tells a stray file's origin."""
    encoded = bytes(simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420"))
    comment = b"\xff\xfe" + (len(SIMULATED) + 2).to_bytes(2, "big") + SIMULATED
    return encoded[:2] + comment + encoded[2:]


def _off_footprint(cutout: Cutout) -> npt.NDArray[np.uint8]:
    """SkyServer's answer where it has no images: a black frame with a line of text, and status 200."""
    frame = Image.new("RGB", (cutout.width, cutout.height))
    ImageDraw.Draw(frame).text((20, 15), "Requested (ra, dec) is outside the SDSS footprint.", fill="white")
    return np.asarray(frame)


def pyramid_level(scale: float) -> int:
    """Level of SkyServer's image pyramid, of pixels 2^level times the native, that serves a scale."""
    level, shrink = 0, NATIVE_SCALE_ARCSEC / scale
    while shrink <= 0.5 and level < 6:
        level, shrink = level + 1, shrink * 2
    return level


def light_radius_arcsec(flux_r: Floats, r50_arcsec: Floats, sersic: Floats, sky_share: float) -> Floats:
    """Where a Sersic profile's r surface brightness sinks to this share of the sky noise, plus the seeing's reach."""
    b = 2 * sersic - 1 / 3
    threshold = sky_share * SKY_NOISE_NMGY[2] / NATIVE_SCALE_ARCSEC**2
    at_r50 = np.maximum(flux_r, 1e-3) / (2 * np.pi * r50_arcsec**2 * sersic) * np.sqrt(b / (2 * np.pi)) / 1.6
    depth = np.log(np.maximum(at_r50 / threshold, 1e-3)) / b
    return np.asarray(r50_arcsec * np.maximum(1 + depth, 0.5) ** sersic + 3.5)


def star_radius_arcsec(flux_r: Floats) -> Floats:
    """Where a star's halo sinks into the noise."""
    return np.asarray(np.clip(4.0 * (np.maximum(flux_r, 1e-3) / 10) ** 0.3, 4.0, 90.0))


def _stamp_size(reach_px: float) -> int:
    return next((size for size in STAMP_SIZES if size >= 2 * reach_px + 2), STAMP_SIZES[-1])


def _window_pixels(window: _Window, cutout: Cutout, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Window pixel coordinates of positions, through the tangent plane at the cutout's centre."""
    d_ra, dec_rad, dec_0 = np.radians(ra - cutout.ra), np.radians(dec), np.radians(cutout.dec)
    depth = np.sin(dec_0) * np.sin(dec_rad) + np.cos(dec_0) * np.cos(dec_rad) * np.cos(d_ra)
    depth = np.maximum(depth, 1e-3)
    east = np.degrees(np.cos(dec_rad) * np.sin(d_ra) / depth) * 3600
    north = (
        np.degrees((np.cos(dec_0) * np.sin(dec_rad) - np.sin(dec_0) * np.cos(dec_rad) * np.cos(d_ra)) / depth) * 3600
    )
    cos, sin = np.cos(window.turn) / window.pixel_arcsec, np.sin(window.turn) / window.pixel_arcsec
    return window.centre_x + east * cos - north * sin, window.centre_y + east * sin + north * cos


def _draw_field(canvas: Floats, window: _Window, cutout: Cutout, objects: FieldObjects, bands: tuple[int, ...]) -> None:
    x, y = _window_pixels(window, cutout, objects.ra, objects.dec)
    reach = (
        np.where(
            objects.point,
            star_radius_arcsec(objects.flux[:, 2]),
            light_radius_arcsec(objects.flux[:, 2], objects.r50_arcsec, objects.sersic, 0.1),
        )
        / window.pixel_arcsec
    )
    height, width = canvas.shape[1:]
    seen = (x + reach > 0) & (y + reach > 0) & (x - reach < width) & (y - reach < height)
    for row in np.flatnonzero(seen).tolist():
        size = _stamp_size(float(reach[row]))
        profile = Profile(
            x=float(x[row]),
            y=float(y[row]),
            flux=objects.flux[row, list(bands)],
            point=bool(objects.point[row]),
            r50_px=float(objects.r50_arcsec[row]) / window.pixel_arcsec,
            axis_ratio=float(objects.axis_ratio[row]),
            angle=float(objects.angle[row]) + window.turn,
            sersic=float(objects.sersic[row]),
        )
        draw(canvas, profile, size, seeing_transform(size, window.pixel_arcsec, window.seeing, bands), bands)


def _resample(levels: Floats, window: _Window, cutout: Cutout) -> Floats:
    """Bilinear resampling of window pixels to the cutout's: north up, east to the left."""
    step = cutout.scale / window.pixel_arcsec
    east = -(np.arange(cutout.width) - 0.5 * (cutout.width - 1)) * step
    north = (0.5 * (cutout.height - 1) - np.arange(cutout.height)) * step
    cos, sin = np.cos(window.turn), np.sin(window.turn)
    x = window.centre_x + east[None, :] * cos - north[:, None] * sin
    y = window.centre_y + east[None, :] * sin + north[:, None] * cos
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, up = x - column, y - row
    flat = levels.reshape(len(levels), -1)
    corner = row * levels.shape[2] + column
    lower = flat[:, corner] * (1 - right) + flat[:, corner + 1] * right
    upper = flat[:, corner + levels.shape[2]] * (1 - right) + flat[:, corner + levels.shape[2] + 1] * right
    return np.asarray(lower * (1 - up) + upper * up)
