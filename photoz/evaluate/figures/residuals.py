"""Photometric against spectroscopic redshift, and what is left between them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from photoz.evaluate.figures.style import GREY, INK, RED, density, drawn, new_figure, redshift_axis, says, span
from photoz.evaluate.metrics import OUTLIER_CUTS, Floats, running
from photoz.metrics import scaled_residual


@drawn
def z_phot_against_z_spec(z_phot: Floats, z_spec: Floats) -> Figure:
    """The plane of z_phot and z_spec with the 1:1 line and the outlier cuts; dz below it."""
    figure = new_figure(5.6, 6.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    low, high = span(np.concatenate([z_spec, z_phot]))
    dz = scaled_residual(z_phot, z_spec)
    line = np.linspace(low, high, 400)
    density(top, z_spec, z_phot, ((low, high), (low, high)))
    top.plot(line, line, color=INK, lw=1.1, label="1:1")
    for cut, style in zip(OUTLIER_CUTS, ("--", ":"), strict=True):
        for sign in (-1, 1):
            edge = line + sign * cut * (1 + line)
            top.plot(line, edge, color=RED, ls=style, lw=1.1, label=f"|dz| = {cut:g}" if sign > 0 else None)
    redshift_axis(top, "x", low, high)
    redshift_axis(top, "y", low, high)
    top.set_ylabel("$z_{\\rm phot}$")
    top.legend(loc="upper left", title=f"{len(z_spec):,} galaxies", alignment="left", title_fontsize=9.5)
    reach = _reach(dz)
    density(bottom, z_spec, dz, ((low, high), (-reach, reach)))
    _guides(bottom, reach)
    bottom.set_ylabel("dz")
    bottom.set_xlabel("$z_{\\rm spec}$")
    return figure


@drawn
def residuals(z_phot: Floats, z_spec: Floats, magnitude: Floats | None, magnitude_label: str) -> Figure:
    """dz against z_spec and against a magnitude, each with a running median and scatter."""
    figure = new_figure(5.6, 6.6)
    top, bottom = figure.subplots(2, 1, sharey=True)
    dz = scaled_residual(z_phot, z_spec)
    reach = _reach(dz)
    low, high = span(z_spec)
    _panel(top, z_spec, dz, (low, high), reach)
    redshift_axis(top, "x", low, high)
    top.set_xlabel("$z_{\\rm spec}$")
    top.set_ylabel("dz")
    bottom.set_ylabel("dz")
    finite = np.isfinite(magnitude) if magnitude is not None else np.zeros(0, bool)
    if magnitude is None or finite.sum() < 2:
        says(bottom, "the catalogue has no magnitudes")
        return figure
    faint, bright = np.percentile(magnitude[finite], [99.8, 0.2])
    room = 0.03 * (faint - bright) + 0.01
    _panel(bottom, magnitude[finite], dz[finite], (bright - room, faint + room), reach)
    bottom.set_xlim(bright - room, faint + room)
    bottom.set_xlabel(magnitude_label)
    return figure


def _panel(axes: Axes, x: Floats, dz: Floats, across: tuple[float, float], reach: float) -> None:
    density(axes, x, dz, (across, (-reach, reach)))
    _guides(axes, reach)
    run = running(x, dz)
    if len(run.centre) > 1:
        axes.plot(run.centre, run.median, color=INK, lw=1.8, marker="o", ms=3.5, label="running median")
        for sign in (-1, 1):
            edge = run.median + sign * run.sigma
            label = "± $\\sigma_{\\rm MAD}$" if sign > 0 else None
            axes.plot(run.centre, edge, color=INK, lw=1.1, ls="--", label=label)
        axes.legend(loc="upper right", ncols=2)


def _guides(axes: Axes, reach: float) -> None:
    axes.axhline(0, color=GREY, lw=1)
    for cut, style in zip(OUTLIER_CUTS, ("--", ":"), strict=True):
        if cut < reach:
            for sign in (-1, 1):
                axes.axhline(sign * cut, color=RED, ls=style, lw=1)
    axes.set_ylim(-reach, reach)


def _reach(dz: Floats) -> float:
    """Half height of a dz axis: covers 99 % of the galaxies and the first outlier cut."""
    return float(np.clip(1.15 * np.percentile(np.abs(dz), 99), 0.065, 1.2))
