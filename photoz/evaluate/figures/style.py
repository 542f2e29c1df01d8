"""One look for every figure, and PNG bytes that depend on nothing but the data."""

import io
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

P = ParamSpec("P")

# Okabe & Ito's palette, told apart by colour-blind readers.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE, INK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#1b1f24", "#8a9099",
)  # fmt: skip
SPLIT_COLOURS = {"train": BLUE, "val": ORANGE, "test": RED}
DENSITY = LinearSegmentedColormap.from_list("density", ["#a9cfe8", "#6aa9d3", "#2f7fb5", "#0b4f84", "#062a4d"])

STYLE: dict[str, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs everywhere
    "font.size": 10,
    "axes.labelsize": 10.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "image.cmap": "viridis",
}


def drawn(draw: Callable[P, Figure]) -> Callable[P, bytes]:
    """Make a function that returns a Figure return its PNG bytes, in the house style."""

    @wraps(draw)
    def png(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with mpl.rc_context(STYLE):  # type: ignore[arg-type]
            figure = draw(*args, **kwargs)
            out = io.BytesIO()
            # No Software tag: it names the matplotlib version.
            figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()

    return png


def new_figure(width: float = 5.6, height: float = 4.2) -> Figure:
    """An empty figure, sizes in inches; 5.6 is one column of the report."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def density(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], spans: tuple[tuple[float, float], ...]) -> None:
    """Points coloured by their crowding; counts on a grid, log scale, where points would hide one another.

    `spans` is ((x0, x1), (y0, y1)), what the axes show.
    """
    if len(x) <= 20_000:
        size = float(np.clip(9000 / max(len(x), 1), 2.5, 26))
        crowding = _crowding(x, y, spans)
        order = np.argsort(crowding, kind="stable")
        axes.scatter(x[order], y[order], c=crowding[order], cmap=DENSITY, s=size, linewidths=0, rasterized=True)
        return
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=(180, 140), range=spans)
    shown = np.ma.masked_equal(counts.T, 0)
    axes.pcolormesh(x_edges, y_edges, shown, cmap=DENSITY, norm=LogNorm(1, max(counts.max(), 2)), rasterized=True)


def _crowding(
    x: NDArray[np.float64], y: NDArray[np.float64], spans: tuple[tuple[float, float], ...]
) -> NDArray[np.float64]:
    """How many galaxies lie around each one: a smoothed histogram, read off at the points."""
    bins = 60
    smooth = gaussian_filter(np.histogram2d(x, y, bins=bins, range=spans)[0], 1.5)
    cells = [
        np.clip(((values - low) / (high - low) * bins).astype(int), 0, bins - 1)
        for values, (low, high) in zip((x, y), spans, strict=True)
    ]
    return np.asarray(np.sqrt(smooth[cells[0], cells[1]]))


def redshift_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Limit an axis to redshifts; beyond z = 1.5 it is even in log(1+z)."""
    if high > 1.5:
        _set(axes, which, "scale", "function", functions=(_log1p, np.expm1))
        ticks = [z for z in (0, 0.5, 1, 2, 3, 4, 5, 6, 8, 10) if low <= z <= high]
        _set(axes, which, "ticks", ticks, labels=[f"{z:g}" for z in ticks])
    _set(axes, which, "lim", low, high)


def _log1p(z: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(np.log1p(np.maximum(np.asarray(z, float), -0.99)))


def _set(axes: Axes, which: str, what: str, *args: Any, **kwargs: Any) -> None:
    getattr(axes, f"set_{which}{what}")(*args, **kwargs)


def span(values: NDArray[np.float64], share: float = 99.8) -> tuple[float, float]:
    """Redshift range to show: from 0 to what covers `share` percent, with some room."""
    finite = values[np.isfinite(values)]
    top = float(np.percentile(finite, share)) if finite.size else 1.0
    return 0.0, max(top * 1.06, 0.05)


def says(axes: Axes, text: str) -> None:
    """Write on an axes that has nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, wrap=True)
    axes.set_xticks([])
    axes.set_yticks([])
