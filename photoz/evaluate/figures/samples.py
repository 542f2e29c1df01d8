"""What was trained and tested on: redshifts, sky, learning curves, and how the estimators compare."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from photoz.evaluate.figures.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    RED,
    SPLIT_COLOURS,
    drawn,
    new_figure,
    span,
)
from photoz.evaluate.metrics import Estimate, Floats

MOLLWEIDE_FROM_DEG = 50.0
_POINTS_SHOWN = 20_000
_CURVES = {"loss": "loss", "crps": "CRPS", "mae": "mean absolute error", "sigma_mad": "$\\sigma_{\\rm MAD}$"}


@drawn
def redshift_histograms(train: Floats, test_spec: Floats | None, test_phot: Floats) -> Figure:
    """Normalised redshift histograms of the training and the tested galaxies."""
    figure = new_figure()
    axes = figure.subplots()
    parts = [(train, "training, $z_{\\rm spec}$", GREY), (test_phot, "tested, $z_{\\rm phot}$", RED)]
    if test_spec is not None:
        parts.insert(1, (test_spec, "tested, $z_{\\rm spec}$", BLUE))
    parts = [part for part in parts if len(part[0])]
    low, high = span(np.concatenate([values for values, _, _ in parts]), 99.9)
    bins = np.linspace(low, high, int(np.clip(2 * np.sqrt(len(test_phot)), 8, 50)) + 1)
    for values, label, colour in parts:
        share = np.histogram(values, bins=bins)[0] / len(values) / (bins[1] - bins[0])
        filled = colour == GREY
        patch = axes.stairs(share, bins, color=colour, fill=filled, lw=1.8, label=f"{label}: {len(values):,}")
        patch.set_alpha(0.45 if filled else 1.0)
    axes.set(xlim=(low, high), xlabel="redshift", ylabel="share per unit redshift")
    axes.legend(loc="upper right")
    return figure


@drawn
def footprint(ra: Floats, dec: Floats, split: Sequence[str]) -> Figure:
    """Positions by split: the whole sky in Mollweide's projection, or a map that fits a smaller area."""
    ra, dec, names = ra[:_POINTS_SHOWN], dec[:_POINTS_SHOWN], np.asarray(split)[:_POINTS_SHOWN]
    centre = float(np.rad2deg(np.angle(np.exp(1j * np.deg2rad(ra)).mean())))
    offset = (ra - centre + 180) % 360 - 180
    if spans_sky(ra, dec):
        return _whole_sky(ra, dec, names)
    return _small_field(offset, dec, names, centre)


def spans_sky(ra: Floats, dec: Floats) -> bool:
    """Whether the positions reach over more of the sky than a flat map can show."""
    centre = np.angle(np.exp(1j * np.deg2rad(ra)).mean())
    offset = np.abs(np.angle(np.exp(1j * (np.deg2rad(ra) - centre))))
    return bool(max(2 * np.rad2deg(offset.max()), np.ptp(dec)) > MOLLWEIDE_FROM_DEG)


def _whole_sky(ra: Floats, dec: Floats, names: np.ndarray) -> Figure:
    figure = new_figure(11.6, 5.4)
    axes = figure.add_subplot(projection="mollweide")
    # Right ascension grows to the left, with 180 degrees in the middle.
    _points(axes, -np.deg2rad(ra - 180), np.deg2rad(dec), names)
    at = np.arange(-150, 151, 60)
    axes.set_xticks(np.deg2rad(at), [f"{180 - degrees}°" for degrees in at])
    north = np.arange(-60, 61, 30)
    axes.set_yticks(np.deg2rad(north), ["−60°", "−30°", "0°", "+30°", "+60°"])
    for label in axes.get_xticklabels():
        label.set_path_effects([Stroke(linewidth=3, foreground="white"), Normal()])
    axes.set(xlabel="right ascension", ylabel="declination")
    _split_legend(axes, loc="lower right", bbox_to_anchor=(1.06, -0.06))
    return figure


def _small_field(offset: Floats, dec: Floats, names: np.ndarray, centre: float) -> Figure:
    figure = new_figure(5.6, 4.9)
    axes = figure.subplots()
    size = max(np.ptp(offset), np.ptp(dec))
    unit, factor = ("deg", 1.0) if size > 1 else ("arcmin", 60.0) if size > 1 / 60 else ("arcsec", 3600.0)
    middle = float(np.median(dec))
    _points(axes, offset * np.cos(np.deg2rad(middle)) * factor, (dec - middle) * factor, names)
    axes.set_aspect("equal", adjustable="datalim")
    axes.invert_xaxis()
    axes.set(
        xlabel=f"east of RA {centre % 360:.4f}° ({unit})",
        ylabel=f"north of Dec {middle:+.4f}° ({unit})",
    )
    _split_legend(axes, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    return figure


def _split_legend(axes: Axes, **where: Any) -> None:
    legend = axes.legend(**where)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([28.0])
            handle.set_alpha(1.0)


def _points(axes: Axes, x: Floats, y: Floats, names: np.ndarray) -> None:
    size = float(np.clip(9000 / len(x), 1.2, 22))
    found = set(names.tolist())
    for name in (*(split for split in SPLIT_COLOURS if split in found), *sorted(found - set(SPLIT_COLOURS))):
        here = names == name
        axes.scatter(
            x[here], y[here], s=size, linewidths=0, alpha=0.8, rasterized=True,
            color=SPLIT_COLOURS.get(name, INK), label=f"{name}: {int(here.sum()):,}",
        )  # fmt: skip


@drawn
def loss_curves(history: pd.DataFrame, best_epoch: float | None) -> Figure:
    """Every quantity recorded for both training and validation, by epoch; the kept epoch is marked."""
    pairs = curve_pairs(history)
    figure = new_figure(11.6 if len(pairs) > 1 else 5.6, 3.9)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(pairs))), pairs, strict=True):
        for part, colour in (("train", BLUE), ("val", ORANGE)):
            column = f"{part}_{name}"
            if column in history:
                axes.plot(history["epoch"], history[column], color=colour, marker="o", ms=2.5, label=part)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, ls="--", lw=1.2, label="kept epoch")
        axes.set(xlabel="epoch", title=_CURVES[name])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper right")
    return figure


def curve_pairs(history: pd.DataFrame) -> list[str]:
    """Names of the (at most three) quantities worth a panel: the loss, what the kept epoch has least of, scatter."""
    columns = {name for name in history.columns if history[name].notna().any()}
    order = ["loss", "crps" if "val_crps" in columns else "mae", "sigma_mad"]
    return [name for name in order if {f"train_{name}", f"val_{name}"} & columns]


@drawn
def comparison(rows: Sequence[tuple[str, Estimate]], reference: str | None) -> Figure:
    """sigma_mad of each estimator with its bootstrap error, best on top."""
    shown = [(label, estimate) for label, estimate in rows if estimate.value is not None]
    shown.sort(key=lambda row: -(row[1].value or 0.0))
    figure = new_figure(11.6, 1.2 + 0.36 * len(shown))
    axes = figure.subplots()
    for place, (label, estimate) in enumerate(shown):
        colour = RED if label == rows[0][0] else BLUE
        axes.errorbar(estimate.value or 0.0, place, xerr=estimate.error, fmt="o", color=colour, ms=6, capsize=3)
    known = dict(shown)
    if reference in known:
        axes.axvline(known[reference].value or 0.0, color=GREY, ls="--", lw=1)
    axes.set_yticks(range(len(shown)), [label for label, _ in shown])
    axes.set(xlabel="$\\sigma_{\\rm MAD}$ (smaller is better)", ylim=(-0.6, len(shown) - 0.4))
    axes.set_xlim(left=0)
    return figure
