"""The sample in right ascension, declination and redshift, turning once: a GIF.

Points are projected and drawn with numpy, far quicker than a 3-D plotting library. Legend: n galaxies, 3 axes,
h row, w column.
"""

import io
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps, font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from photoz.evaluate.metrics import Floats

WIDTH, HEIGHT = 520, 440
FRAMES = 60
FRAME_MS = 80
MOST_GALAXIES = 5000
TILT_DEG = 24.0
WEDGE_FROM_DEG = 20.0  # a narrower field would be a needle as a cone: its sky is spread out instead
SPARSE = 1500
_SHADES = 40
_BACKGROUND = (13, 17, 23)
_LINES = (70, 78, 90)
_TEXT = (200, 206, 214)
_DISTANCE = 3.2  # of the camera, in units of the sample's radius


@dataclass(frozen=True)
class Scene:
    """Galaxies at `points_n3` within the unit sphere, their redshift rank 0 to 1, and guide lines with labels."""

    points_n3: Floats
    shade_n: Floats
    lines: list[Floats]
    labels: list[tuple[Floats, str]]


def sky_animation(ra_deg: Floats, dec_deg: Floats, z: Floats) -> tuple[bytes, bytes]:
    """The GIF, and its first frame as a PNG for print and for people who want no motion."""
    finite = np.isfinite(ra_deg) & np.isfinite(dec_deg) & np.isfinite(z) & (z > 0)
    rows = np.flatnonzero(finite)[:MOST_GALAXIES]
    scene = build_scene(ra_deg[rows], dec_deg[rows], z[rows])
    frames = [draw_frame(scene, 2 * np.pi * frame / FRAMES) for frame in range(FRAMES)]
    gif, png = io.BytesIO(), io.BytesIO()
    frames[0].save(
        gif, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, optimize=False, disposal=1
    )
    frames[0].convert("RGB").save(png, "PNG", optimize=True)
    return gif.getvalue(), png.getvalue()


def build_scene(ra_deg: Floats, dec_deg: Floats, z: Floats) -> Scene:
    """Place galaxies at their direction and redshift: a cone or sphere; for a small field, a box with z along it."""
    if not len(z):
        return Scene(np.zeros((0, 3)), np.zeros(0), [], [])
    top = float(np.percentile(z, 99.5))
    near = z <= top
    ra_deg, dec_deg, z = ra_deg[near], dec_deg[near], z[near]
    centre = float(np.rad2deg(np.angle(np.exp(1j * np.deg2rad(ra_deg)).mean())))
    offset = (ra_deg - centre + 180) % 360 - 180
    # Equal counts get equal shares of the colour scale, whatever the distribution.
    shade = np.argsort(np.argsort(z, kind="stable"), kind="stable") / max(len(z) - 1, 1)
    if max(np.ptp(offset), np.ptp(dec_deg)) < WEDGE_FROM_DEG:
        return _box(offset, dec_deg, z, top, shade)
    return _sphere(ra_deg, dec_deg, z, top, shade)


def _sphere(ra_deg: Floats, dec_deg: Floats, z: Floats, top: float, shade: Floats) -> Scene:
    lon, lat = np.deg2rad(ra_deg), np.deg2rad(dec_deg)
    directions = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    around = np.linspace(0, 2 * np.pi, 97)
    circle = np.column_stack([np.cos(around), np.sin(around), np.zeros_like(around)])
    rings = _rings(top)
    lines = [circle * ring / top for ring in rings]
    labels = [(ring / top * np.array([np.sqrt(0.5), np.sqrt(0.5), 0.0]), f"z={ring:g}") for ring in rings]
    for hour in range(0, 24, 6):
        angle = np.deg2rad(15 * hour)
        ray = np.array([np.cos(angle), np.sin(angle), 0.0])
        lines.append(np.linspace(0, 1.0, 2)[:, None] * ray)
        labels.append((1.1 * ray, f"{hour} h"))
    lines.append(np.array([[0, 0, -0.85], [0, 0, 0.85]]))
    labels.append((np.array([0, 0, 0.92]), "+90°"))
    return Scene(directions * (z / top)[:, None], shade, lines, labels)


def _box(offset: Floats, dec_deg: Floats, z: Floats, top: float, shade: Floats) -> Scene:
    half = 0.5 * max(np.ptp(offset) * np.cos(np.deg2rad(np.median(dec_deg))), np.ptp(dec_deg), 1e-9)
    east = (offset - offset.mean()) * np.cos(np.deg2rad(np.median(dec_deg))) / half
    north = (dec_deg - 0.5 * (dec_deg.max() + dec_deg.min())) / half
    scaled = np.log1p(z) / np.log1p(top)
    points = np.column_stack([1.7 * scaled - 0.85, -0.42 * east, 0.42 * north])
    lines, labels = [], []
    square = 0.45 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
    for ring in (0.0, *_rings(top)):
        x = 1.7 * np.log1p(ring) / np.log1p(top) - 0.85
        lines.append(np.column_stack([np.full(5, x), square]))
        labels.append((np.array([x, -0.45, -0.52]), f"z={ring:g}"))
    lines.append(np.column_stack([np.full(5, 0.85), square]))
    lines += [np.array([[-0.85, *corner], [0.85, *corner]]) for corner in square[:4]]
    labels += [(np.array([-0.85, 0.0, -0.52]), "RA"), (np.array([-0.85, -0.53, 0.0]), "Dec")]
    return Scene(points, shade, lines, labels)


def _rings(top: float) -> list[float]:
    """Two to four round redshifts up to `top`."""
    step = next(step for step in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0) if top / step < 5 or step == 10.0)
    return [round(step * number, 3) for number in range(1, int(top / step) + 1)] or [round(top, 3)]


def draw_frame(scene: Scene, angle: float) -> Image.Image:
    """One frame as a palette image, the scene turned by `angle` radians."""
    image = Image.new("P", (WIDTH, HEIGHT), 0)
    image.putpalette(_palette())
    brush = ImageDraw.Draw(image)
    for line in scene.lines:
        xy, _ = project(line, angle)
        brush.line([tuple(point) for point in xy.tolist()], fill=1)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 12)
    image = Image.fromarray(_with_points(np.asarray(image).copy(), scene, angle), "P")
    image.putpalette(_palette())
    brush = ImageDraw.Draw(image)
    brush.fontmode = "1"  # no smoothing: the palette has no greys for it
    for place, text in scene.labels:
        xy, _ = project(place[None], angle)
        brush.text(tuple(xy[0].tolist()), text, fill=2, font=font, anchor="mm")
    return image


def project(points_n3: Floats, angle: float) -> tuple[Floats, Floats]:
    """Pixel positions `(n, 2)` seen in perspective after a turn about the pole, and depth `(n,)`, larger nearer."""
    turn, tilt = angle, np.deg2rad(TILT_DEG)
    x = points_n3[:, 0] * np.cos(turn) - points_n3[:, 1] * np.sin(turn)
    y = points_n3[:, 0] * np.sin(turn) + points_n3[:, 1] * np.cos(turn)
    up = points_n3[:, 2] * np.cos(tilt) + y * np.sin(tilt)
    depth = -(y * np.cos(tilt)) + points_n3[:, 2] * np.sin(tilt)
    scale = 0.385 * WIDTH * _DISTANCE / (_DISTANCE - depth)
    return np.column_stack([WIDTH / 2 + x * scale, HEIGHT / 2 - up * scale]), depth


def _with_points(pixels_hw: NDArray[np.uint8], scene: Scene, angle: float) -> NDArray[np.uint8]:
    xy, depth = project(scene.points_n3, angle)
    order = np.argsort(depth, kind="stable")  # far ones first, near ones over them
    column, row = np.round(xy[order]).astype(int).T
    shade = (3 + np.round(scene.shade_n[order] * (_SHADES - 1))).astype(np.uint8)
    near = depth[order] > 0
    # One pixel far away, 2x2 nearby; in a sparse field 2x2 and a cross of 3.
    everywhere = np.ones_like(near)
    brush = [(0, 0, everywhere), (0, 1, near), (1, 0, near), (1, 1, near)]
    if len(order) < SPARSE:
        brush = [(down, across, everywhere) for down in (0, 1) for across in (0, 1)]
        brush += [(2, 0, near), (2, 1, near), (0, 2, near), (1, 2, near)]
    for down, across, these in brush:
        r, c, value = row[these] + down, column[these] + across, shade[these]
        inside = (r >= 0) & (r < HEIGHT) & (c >= 0) & (c < WIDTH)
        pixels_hw[r[inside], c[inside]] = value[inside]
    return pixels_hw


def _palette() -> list[int]:
    colours = (colormaps["plasma"](np.linspace(0.2, 0.98, _SHADES))[:, :3] * 255).round().astype(int)
    return [*_BACKGROUND, *_LINES, *_TEXT, *colours.ravel().tolist()]
