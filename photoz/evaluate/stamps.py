"""Cutouts of the tested galaxies: their colours for a baseline, and pictures for people.

Legend: b image, c channel, h row, w column.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from photoz.bands import RGB
from photoz.data.layout import ImageFormat, context_of
from photoz.data.shard_set import ShardBatch, ShardSet
from photoz.metrics import SIGMA_OF_MAD
from photoz.runtime import check_stop

_APERTURES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # half widths, as shares of the stamp
_INNER = 3 / 16  # half width of the square whose quantiles are taken
_QUANTILES = (0.1, 0.5, 0.9, 0.99)


def batches(shards: ShardSet, names: Iterable[str], wanted: set[str]) -> Iterator[tuple[ShardBatch, NDArray[np.intp]]]:
    """The shards in turn, each with the rows of the galaxies in `wanted`; shards without any are passed over."""
    for name in names:
        check_stop()
        batch = shards.read_shard(name)
        ids = batch.table["object_id"].to_pylist()
        rows = np.flatnonzero([object_id in wanted for object_id in ids])
        if len(rows):
            yield batch, rows


def colours(images_bchw: NDArray[np.generic]) -> NDArray[np.float32]:
    """Brightness and neighbouring channels' differences in growing apertures and at quantiles, `(b, features)`.

    Fluxes are taken through asinh, in units of their own noise, so that differences behave as colours do.
    """
    b, c, h, w = images_bchw.shape
    values: NDArray[Any] = images_bchw
    if values.dtype != np.uint8:
        fluxes = np.nan_to_num(values.astype(np.float32))
        values = np.arcsinh(fluxes / _noise(fluxes))
    found = []
    for share in _APERTURES:
        rows, columns = _middle(h, share), _middle(w, share)
        found.append(values[:, :, rows, columns].mean(axis=(2, 3), dtype=np.float32))
    inner = np.sort(values[:, :, _middle(h, _INNER), _middle(w, _INNER)].reshape(b, c, -1), axis=2)
    found += [inner[:, :, round(q * (inner.shape[2] - 1))].astype(np.float32) for q in _QUANTILES]
    return np.concatenate([*found, *(level[:, :-1] - level[:, 1:] for level in found)], axis=1)


def _middle(size: int, share: float) -> slice:
    half = max(1, round(size * share))
    return slice(max(0, size // 2 - half), size // 2 + half)


def _noise(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Robust scatter of each image and channel, `(b, c, 1, 1)`; the plain one where that is 0, and 1 where both are."""
    flat = np.nan_to_num(values).reshape(*values.shape[:2], -1)
    scatter = SIGMA_OF_MAD * np.median(np.abs(flat - np.median(flat, axis=2, keepdims=True)), axis=2)
    scatter = np.where(scatter > 0, scatter, flat.std(axis=2, dtype=np.float64))
    return np.where(scatter > 0, scatter, 1.0).astype(np.float32)[:, :, None, None]


def picture(image_chw: NDArray[np.generic], image: ImageFormat, pixels: int = 192) -> bytes:
    """A PNG of one cutout, enlarged to about `pixels`: colours as stored, or an asinh stretch of fluxes."""
    rgb = image_chw if image_chw.dtype == np.uint8 else _stretched(image_chw)
    rgb = rgb[_colour_channels(image, len(rgb))]
    shown = Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)).astype(np.uint8), "RGB")
    zoom = max(1, round(pixels / max(shown.size)))
    shown = shown.resize((shown.width * zoom, shown.height * zoom), Image.Resampling.NEAREST)
    out = io.BytesIO()
    shown.save(out, "PNG", optimize=True)
    return out.getvalue()


def _colour_channels(image: ImageFormat, channels: int) -> list[int]:
    """Which channels are shown as red, green and blue: i, r, g; else the first three, red first for 8 bits."""
    if set(RGB) <= set(image.bands):
        return [image.bands.index(band) for band in RGB]
    if channels < 3:
        return [0, 0, 0]
    return [0, 1, 2] if image.dtype == "uint8" else [2, 1, 0]


def _stretched(image_chw: NDArray[np.generic]) -> NDArray[np.uint8]:
    """8-bit asinh stretch (Lupton et al. 2004), each channel from its sky to its brightest part."""
    values = np.nan_to_num(image_chw.astype(np.float32))
    sky = np.median(values, axis=(1, 2), keepdims=True)
    noise = _noise(values[None])[0]
    stretched = np.arcsinh((values - sky) / (3.0 * noise))
    top = max(float(np.percentile(stretched, 99.7)), 1e-6)
    return np.asarray(np.clip(stretched / top * 235.0 + 20.0, 0, 255), np.uint8)


def pictures(shards: ShardSet, shard_of: Mapping[str, str]) -> dict[str, bytes]:
    """A PNG for each object id in `shard_of`, which says in which shard it lies."""
    found: dict[str, bytes] = {}
    for batch, rows in batches(shards, sorted(set(shard_of.values())), set(shard_of)):
        ids = batch.table["object_id"].to_pylist()
        found |= {ids[row]: picture(batch.images_bchw[row], shards.image) for row in rows}
    return found


def stamp_features(
    shards: ShardSet, names: Iterable[str], wanted: set[str], most: int | None = None
) -> tuple[list[str], NDArray[np.float32]]:
    """Object ids of the wanted galaxies in these shards, of the first `most` at most, and what trees are given of them:
    stamp colours and, as the network may be, E(B-V) in mag, 0 where it is unknown.
    """
    ids: list[str] = []
    found: list[NDArray[np.float32]] = []
    for batch, rows in batches(shards, names, wanted):
        all_ids = batch.table["object_id"].to_pylist()
        ids += [all_ids[row] for row in rows]
        ebv_b1 = np.nan_to_num(context_of(batch.table, ("ebv",)))
        for i in range(0, len(rows), 256):
            part = rows[i : i + 256]
            found.append(np.column_stack([colours(batch.images_bchw[part]), ebv_b1[part]]))
        if most is not None and len(ids) >= most:
            break
    if not found:
        return [], np.empty((0, 0), np.float32)
    return ids[:most], np.concatenate(found)[:most]
