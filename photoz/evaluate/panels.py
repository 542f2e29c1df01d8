"""The report's figures with their captions: what is drawn, and how to read it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from photoz.evaluate.baselines import magnitude_bands
from photoz.evaluate.figures import pdfs, residuals, samples
from photoz.evaluate.metrics import Floats
from photoz.evaluate.sample import Sample
from photoz.evaluate.scoring import Scores


@dataclass(frozen=True)
class Panel:
    """A figure: file name without suffix, title, caption, PNG bytes; `wide` ones take the page's full width."""

    name: str
    title: str
    caption: str
    png: bytes
    wide: bool = False


def accuracy_panels(scored: pd.DataFrame) -> Iterator[Panel]:
    """z_phot against z_spec, and residuals."""
    z_phot, z_spec = scored["z_phot"].to_numpy(float), scored["z_spec"].to_numpy(float)
    yield Panel(
        "z_phot_z_spec",
        "Photometric against spectroscopic redshift",
        "Each galaxy once; darker blue is more crowded. A perfect estimator lies on the "
        "black line. Beyond the red lines a galaxy counts as an outlier at 0.05 (dashed) or 0.15 (dotted). Below: "
        "dz = (z_phot − z_spec) / (1 + z_spec).",
        residuals.z_phot_against_z_spec(z_phot, z_spec),
    )
    magnitude, label = _reference_magnitude(scored)
    yield Panel(
        "residuals",
        "Residuals against redshift and magnitude",
        "The black line is the median dz of bins with equal numbers of galaxies, the dashed lines add and subtract "
        "their σ_MAD. Against z_spec some slope is expected of any estimator that returns a median: rare redshifts "
        "are drawn towards common ones. Against magnitude the median should stay on zero.",
        residuals.residuals(z_phot, z_spec, magnitude, label),
    )


def _reference_magnitude(scored: pd.DataFrame) -> tuple[Floats | None, str]:
    bands = magnitude_bands(list(scored.columns))
    if not bands:
        return None, ""
    band = "mag_r" if "mag_r" in bands else bands[len(bands) // 2]
    return scored[band].to_numpy(float), f"{band.removeprefix('mag_')} magnitude"


def comparison_panel(scores: Scores) -> Panel:
    """sigma_mad of all estimators."""
    rows = [(row.label, row.metrics["cnn"]["sigma_mad"]) for row in scores.rows if row.key != "training_mean"]
    return Panel(
        "comparison",
        "The scatter of each estimator",
        "σ_MAD of dz with its bootstrap error; further left is better. The dashed line is the reference baseline, "
        f"{scores.label_of(scores.reference).lower() or 'absent here'}. The training mean is in the table alone: it "
        "would stretch the axis.",
        samples.comparison(rows, scores.label_of(scores.reference)),
        wide=True,
    )


def pdf_panels(sample: Sample) -> Iterator[Panel]:
    """PIT, coverage and widths, where there are PDFs and redshifts to hold them against."""
    pit = sample.scored["pit"].dropna().to_numpy(float) if "pit" in sample.scored else np.zeros(0)
    if len(pit):
        yield Panel(
            "pit",
            "Probability integral transform",
            "Where each z_spec falls in its own PDF. Honest PDFs give a flat histogram within the grey band; a hump "
            "in the middle means PDFs too wide, horns at the ends too narrow, a slope a bias.",
            pdfs.pit_histogram(pit),
        )
        yield Panel(
            "coverage",
            "Coverage of the PDFs' central intervals",
            "Of the galaxies' central intervals that promise a probability, the share that holds z_spec.",
            pdfs.coverage(pit),
        )
    if {"z_lo68", "z_hi68"} <= set(sample.galaxies.columns):
        shown = sample.scored if len(sample.scored) else sample.galaxies
        half = 0.5 * (shown["z_hi68"] - shown["z_lo68"]) / (1 + shown["z_phot"])
        dz = shown["dz"].to_numpy(float) if len(sample.scored) else None
        yield Panel(
            "widths",
            "How sure the network is" if dz is None else "Does the stated uncertainty tell the error?",
            "Half width of the 68 % interval."
            if dz is None or len(dz) < pdfs.MIN_FOR_TREND
            else "Half width of the 68 % interval against |dz|: the orange line, below which 68 % of the galaxies lie, "
            "should follow the black one.",
            pdfs.widths(half.to_numpy(float), shown["z_phot"].to_numpy(float), dz),
        )


def unfamiliar_panel(sample: Sample) -> Panel | None:
    """Out-of-distribution scores, for predictions that nothing else can check."""
    if "ood_score" not in sample.galaxies or sample.galaxies["ood_score"].notna().sum() < 2 or len(sample.scored):
        return None
    return Panel(
        "unfamiliar",
        "How familiar the images look",
        "Out-of-distribution score: high values are images unlike those of the training set, whose redshifts deserve "
        "little trust; 1 is what one in a hundred validation galaxies exceeds.",
        pdfs.unfamiliarity(sample.galaxies["ood_score"].dropna().to_numpy(float)),
    )


def redshifts_panel(sample: Sample, train: pd.DataFrame) -> Panel | None:
    """Redshift distributions of the training and tested galaxies."""
    galaxies = sample.scored if len(sample.scored) else sample.galaxies
    z_phot = galaxies["z_phot"].dropna().to_numpy(float)
    z_spec = sample.scored["z_spec"].to_numpy(float) if len(sample.scored) else None
    if not len(z_phot):
        return None
    return Panel(
        "redshifts",
        "Redshifts trained on and tested on",
        "Histograms of equal area. Training and tested galaxies should have the same distribution: a network knows "
        "little of redshifts that it has seldom seen.",
        samples.redshift_histograms(train["z_spec"].to_numpy(float), z_spec, z_phot),
    )


def n_of_z_panel(sample: Sample) -> Panel | None:
    """N(z) from PDFs, medians and spectra."""
    z_phot = sample.galaxies["z_phot"].dropna().to_numpy(float)
    if not len(z_phot):
        return None
    all_known = 0 < len(sample.scored) == len(sample.galaxies)
    with_spec = sample.scored["z_spec"].to_numpy(float) if all_known else None
    edges = sample.edges if sample.edges is not None else np.zeros(0)
    return Panel(
        "n_of_z",
        "N(z)",
        "The redshift distribution that the sum of the PDFs implies, beside the histogram of their medians"
        + (" and the true one." if with_spec is not None else "."),
        pdfs.redshift_distribution(edges, sample.stacked, z_phot, with_spec),
    )


def sky_panel(sample: Sample, known: pd.DataFrame) -> Panel:
    """Footprint of the tested galaxies and of those in the training catalogue, by split."""
    tested = sample.galaxies[["ra", "dec"]].assign(split=_splits(sample))
    others = known.loc[~known["object_id"].isin(sample.galaxies["object_id"]), ["ra", "dec", "split"]]
    # Mixed, so that a thinned map shows both alike.
    rows = pd.concat([others, tested], ignore_index=True).sample(frac=1, random_state=0)
    ra, dec = rows["ra"].to_numpy(float), rows["dec"].to_numpy(float)
    return Panel(
        "footprint",
        "Where on the sky",
        "Positions (ICRS) of the tested galaxies and of those in the training catalogue. Whole cells of sky go to one "
        "split, so that neighbours, which share clusters, seeing and calibration, do not stand on both sides.",
        samples.footprint(ra, dec, rows["split"].tolist()),
        wide=samples.spans_sky(ra, dec),
    )


def _splits(sample: Sample) -> pd.Series:
    if "split" not in sample.galaxies:
        return pd.Series("no split", index=sample.galaxies.index)
    return sample.galaxies["split"].fillna("no split")


def learning_panel(history: pd.DataFrame, best_epoch: float | None, criterion: str | None) -> Panel | None:
    """Loss curves, where the history holds any."""
    if history.empty or "epoch" not in history or not samples.curve_pairs(history):
        return None
    chosen = f"which has the least {criterion} on" if criterion else "chosen on"
    return Panel(
        "learning",
        "Learning curves",
        f"By epoch. The weights of the marked epoch were kept, {chosen} the validation split. Validation "
        "rising while training falls is overfitting.",
        samples.loss_curves(history, best_epoch),
        wide=len(samples.curve_pairs(history)) > 1,
    )


def files_of(panels: Sequence[Panel]) -> dict[str, bytes]:
    """Payload names and bytes of the figures."""
    return {f"figures/{panel.name}.png": panel.png for panel in panels}
