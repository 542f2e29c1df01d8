"""Are the PDFs honest? PIT, coverage, stacked PDFs, widths."""

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from photoz.evaluate.figures.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    RED,
    density,
    drawn,
    new_figure,
    says,
    span,
)
from photoz.evaluate.metrics import Floats

MIN_FOR_TREND = 50


@drawn
def pit_histogram(pit: Floats) -> Figure:
    """PIT histogram with the band in which 95 % of a uniform PIT's bars lie."""
    figure = new_figure()
    axes = figure.subplots()
    bins = int(np.clip(len(pit) // 50, 5, 25))
    counts, edges = np.histogram(pit, bins=bins, range=(0, 1))
    low, high = stats.binom.ppf([0.025, 0.975], len(pit), 1 / bins) * bins / len(pit)
    axes.axhspan(low, high, color=GREY, alpha=0.25, lw=0, label="95 % of bars, if uniform")
    axes.axhline(1, color=INK, lw=1)
    axes.stairs(counts * bins / len(pit), edges, fill=True, color=BLUE, alpha=0.75)
    axes.set_xlabel("PIT: the PDF's cumulative probability at $z_{\\rm spec}$")
    axes.set(xlim=(0, 1), ylabel="relative frequency")
    axes.set_ylim(0, max(2.0, 1.15 * float((counts * bins / len(pit)).max())))
    axes.legend(loc="upper right")
    return figure


@drawn
def coverage(pit: Floats) -> Figure:
    """Share of galaxies inside the central interval of each probability, against that probability."""
    figure = new_figure()
    axes = figure.subplots()
    promised = np.linspace(0, 1, 101)
    inside = np.sort(np.abs(2 * pit - 1))
    kept = np.searchsorted(inside, promised, side="right") / len(pit)
    error = 1.96 * np.sqrt(promised * (1 - promised) / len(pit))
    band = (promised - error, promised + error)
    axes.fill_between(promised, *band, color=GREY, alpha=0.25, lw=0, label="95 % band, if exact")
    axes.plot([0, 1], [0, 1], color=INK, lw=1)
    axes.plot(promised, kept, color=BLUE, lw=2.2, label="this network")
    axes.text(0.97, 0.55, "below the line:\nPDFs too narrow", ha="right", va="top", color=GREY, fontsize=9)
    axes.text(0.03, 0.62, "above the line:\nPDFs too wide", ha="left", va="top", color=GREY, fontsize=9)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set(xlabel="promised probability of the interval", ylabel="share of galaxies inside")
    axes.legend(loc="upper left")
    return figure


@drawn
def redshift_distribution(edges: Floats, stacked: Floats | None, z_phot: Floats, z_spec: Floats | None) -> Figure:
    """N(z): the sum of the PDFs, the histogram of z_phot and, where known, of z_spec."""
    figure = new_figure()
    axes = figure.subplots()
    everything = z_phot if z_spec is None else np.concatenate([z_phot, z_spec])
    low, high = span(everything, 99.9)
    bins = np.linspace(low, high, int(np.clip(2 * np.sqrt(len(z_phot)), 8, 60)) + 1)
    width = bins[1] - bins[0]
    if z_spec is not None:
        counts, _ = np.histogram(z_spec, bins=bins)
        axes.stairs(counts / width, bins, fill=True, color="#c9d0d8", label="$z_{\\rm spec}$")
    counts, _ = np.histogram(z_phot, bins=bins)
    axes.stairs(counts / width, bins, color=RED, lw=1.5, label="$z_{\\rm phot}$ (PDF medians)")
    if stacked is not None:
        centres = 0.5 * (edges[1:] + edges[:-1])
        axes.plot(centres, stacked / np.diff(edges), color=BLUE, lw=2, label="sum of the PDFs")
    axes.set(xlim=(low, high), ylabel="galaxies per unit redshift", xlabel="redshift")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right")
    return figure


@drawn
def unfamiliarity(score: Floats) -> Figure:
    """Histogram of out-of-distribution scores."""
    figure = new_figure()
    axes = figure.subplots()
    axes.hist(score, bins=int(np.clip(np.sqrt(len(score)), 5, 60)), color=BLUE, alpha=0.8)
    axes.set_yscale("log")
    axes.set(xlabel="out-of-distribution score", ylabel="galaxies")
    return figure


@drawn
def widths(half_width: Floats, z_phot: Floats, dz: Floats | None) -> Figure:
    """Half width of the 68 % interval over 1+z: against |dz| in bins where z_spec is known, else its histogram."""
    figure = new_figure()
    axes = figure.subplots()
    usable = np.isfinite(half_width) & (half_width > 0)
    if usable.sum() < 2:
        says(axes, "no intervals to show")
        return figure
    half_width, z_phot = half_width[usable], z_phot[usable]
    if dz is None or len(dz) < MIN_FOR_TREND:
        bins = int(np.clip(np.sqrt(len(half_width)), 5, 50))
        axes.hist(half_width, bins=bins, color=BLUE, alpha=0.8)
        axes.set(xlabel="half width of the 68 % interval / (1+z)", ylabel="galaxies")
        return figure
    size = np.abs(dz[usable])
    reach = float(np.percentile(half_width, 99.5))
    density(axes, half_width, size, ((0, reach), (0, 3 * reach)))
    pieces = np.array_split(np.argsort(half_width, kind="stable"), int(np.clip(len(size) // 40, 3, 12)))
    x = np.array([np.median(half_width[rows]) for rows in pieces])
    y = np.array([np.percentile(size[rows], 68.27) for rows in pieces])
    axes.plot(x, y, color=ORANGE, marker="o", ms=4, lw=2, label="68 % of |dz| lie below")
    axes.plot([0, reach], [0, reach], color=INK, lw=1, label="equal: widths are honest")
    axes.set(xlim=(0, reach), ylim=(0, 3 * reach), xlabel="half width of the 68 % interval / (1+z)", ylabel="|dz|")
    axes.legend(loc="upper left")
    return figure
