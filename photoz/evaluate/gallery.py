"""The best and the worst galaxies: cutout, PDF, both redshifts, and a link where the galaxy is a real survey's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from photoz.artifacts import Artifact
from photoz.data.shard_set import open_shards
from photoz.evaluate.metrics import Floats
from photoz.evaluate.sample import Sample, read_pdfs
from photoz.evaluate.stamps import pictures

Link = Callable[[str], str | None]  # from object ids to web pages

PLOT_WIDTH, PLOT_HEIGHT = 200.0, 64.0


@dataclass(frozen=True)
class Card:
    """One galaxy of the gallery. `path` is the PDF's outline in an SVG of PLOT_WIDTH x PLOT_HEIGHT."""

    object_id: str
    link: str | None
    png: bytes
    z_phot: float
    z_spec: float | None
    dz: float | None
    interval: tuple[float, float] | None
    x_phot: float
    x_spec: float | None
    path: str
    z_top: float


def galleries(sample: Sample, predictions: Artifact, shards: Artifact, size: int, link: Link) -> dict[str, list[Card]]:
    """Cards by group: best and worst by |dz|; by interval width where no redshift is known."""
    groups = _groups(sample, size)
    chosen = pd.concat(list(groups.values())).drop_duplicates("object_id") if groups else sample.galaxies.head(0)
    shard_of = dict(zip(chosen["object_id"], chosen["shard"], strict=True))
    images, pdfs = pictures(open_shards(shards), shard_of), read_pdfs(predictions, shard_of)
    top = _redshift_reach(chosen)
    return {
        title: [
            _card({str(name): value for name, value in row.items()}, images, pdfs, sample.edges, top, link)
            for row in rows.to_dict("records")
        ]
        for title, rows in groups.items()
    }


def _groups(sample: Sample, size: int) -> dict[str, pd.DataFrame]:
    if size == 0:
        return {}
    scored = sample.scored
    if len(scored):
        ranked = scored.assign(rank=scored["dz"].abs()).sort_values(["rank", "object_id"], kind="stable")
        worst = ranked.iloc[::-1].head(min(size, len(ranked) // 2))
        best = ranked.head(min(size, len(ranked) - len(worst)))
        return {"Best": best} | ({"Worst": worst} if len(worst) else {})
    if "z_lo68" not in sample.galaxies:
        return {"First galaxies": sample.galaxies.head(size)}
    width = (sample.galaxies["z_hi68"] - sample.galaxies["z_lo68"]) / (1 + sample.galaxies["z_phot"])
    ranked = sample.galaxies.assign(rank=width).sort_values(["rank", "object_id"], kind="stable")
    widest = ranked.iloc[::-1].head(min(size, len(ranked) // 2))
    return {"Narrowest PDFs": ranked.head(min(size, len(ranked) - len(widest))), "Widest PDFs": widest}


def _redshift_reach(chosen: pd.DataFrame) -> float:
    shown = [chosen[name] for name in ("z_phot", "z_spec", "z_hi68") if name in chosen]
    values = np.concatenate([column.to_numpy(float) for column in shown]) if shown else np.zeros(1)
    finite = values[np.isfinite(values)]
    return max(1.1 * float(finite.max()), 0.05) if finite.size else 1.0


def _card(
    row: Mapping[str, object],
    images: Mapping[str, bytes],
    pdfs: Mapping[str, Floats],
    edges: Floats | None,
    top: float,
    link: Link,
) -> Card:
    object_id = str(row["object_id"])
    z_phot, z_spec, dz = (_number(row.get(name)) for name in ("z_phot", "z_spec", "dz"))
    low, high = _number(row.get("z_lo68")), _number(row.get("z_hi68"))
    mass = pdfs.get(object_id)
    return Card(
        object_id=object_id,
        link=link(object_id),
        png=images[object_id],
        z_phot=z_phot if z_phot is not None else float("nan"),
        z_spec=z_spec,
        dz=dz,
        interval=(low, high) if low is not None and high is not None else None,
        x_phot=PLOT_WIDTH * (z_phot or 0.0) / top,
        x_spec=None if z_spec is None else PLOT_WIDTH * z_spec / top,
        path=outline(edges, mass, top) if edges is not None and mass is not None else "",
        z_top=top,
    )


def outline(edges: Floats, mass: Floats, top: float) -> str:
    """SVG path of a PDF from z = 0 to `top`, its peak at the plot's full height."""
    density = mass / np.diff(edges)
    peak = float(np.nanmax(density))
    if not np.isfinite(peak) or peak <= 0:
        return ""
    shown = (edges[1:] > 0) & (edges[:-1] < top)
    x = np.clip(np.repeat(edges, 2)[1:-1].reshape(-1, 2)[shown].ravel() / top, 0, 1) * PLOT_WIDTH
    y = np.repeat(PLOT_HEIGHT * (1 - 0.94 * density[shown] / peak), 2)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return f"M{x[0]:.1f},{PLOT_HEIGHT:.0f} L{points} L{x[-1]:.1f},{PLOT_HEIGHT:.0f} Z"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, float | int) and np.isfinite(value) else None
