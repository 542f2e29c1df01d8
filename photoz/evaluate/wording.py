"""What the report says in words: what was tested on what, and what to be wary of."""

from dataclasses import dataclass

import astropy.units as u
import cdshealpix.nested
import numpy as np
import pandas as pd
from astropy.coordinates import Latitude, Longitude

from photoz.evaluate.chain import Chain
from photoz.evaluate.report import Banner
from photoz.evaluate.sample import Sample
from photoz.evaluate.scoring import Scores, counts
from photoz.surveys import find_survey

SMALL = 100
SPLIT_WORDS = {
    "test": "the test split",
    "val": "the validation split",
    "train": "the training split",
    "all": "all splits together",
}


@dataclass(frozen=True)
class Separation:
    """How apart the tested galaxies are from those that the model learned from."""

    shared_ids: int
    neighbours: int | None  # tested galaxies in a cell or block with training galaxies; None if it can't be told
    by: str  # "sky cell (HEALPix nside 64)", "block", or "the table's own split"

    def in_words(self) -> str:
        """How apart they are, as part of a sentence."""
        if self.shared_ids:
            return f"{self.shared_ids:,} of them training galaxies"
        if self.neighbours is None:
            return "split as the table says"
        if self.neighbours:
            return f"{self.neighbours:,} of them in a {self.by} with training galaxies"
        return f"no {self.by} holds both tested and training galaxies"

    @classmethod
    def of(cls, tested: pd.DataFrame, train: pd.DataFrame, chain: Chain) -> "Separation":
        """Compare ids, and sky cells at the order (or blocks) by which the catalogue was split."""
        same = tested["object_id"].isin(train["object_id"])
        how = chain.catalog.summary
        if "block" in tested and "block" in train and tested["block"].notna().any():
            blocks = tested["block"].isin(train["block"].dropna()) & ~same
            return cls(int(same.sum()), int(blocks.sum()), "block")
        nside = how.get("split_nside")
        if not isinstance(nside, int) or not len(train):
            return cls(int(same.sum()), None, "the table's own split")
        order = nside.bit_length() - 1
        cells = np.isin(_cells(tested, order), _cells(train, order)) & ~same.to_numpy()
        return cls(int(same.sum()), int(cells.sum()), f"sky cell (HEALPix nside {nside})")


def _cells(rows: pd.DataFrame, order: int) -> np.ndarray:
    lon, lat = Longitude(rows["ra"].to_numpy(float), u.deg), Latitude(rows["dec"].to_numpy(float), u.deg)
    return np.asarray(cdshealpix.nested.lonlat_to_healpix(lon, lat, order))


def is_simulated(chain: Chain) -> bool:
    """Whether the images were drawn rather than taken."""
    return bool(chain.shards.summary.get("simulated") or chain.catalog.summary.get("simulated"))


def image_words(chain: Chain) -> str:
    """The images in words, such as `simulated 128x128 px JPEG images in 3 channels at 0.3"/px`."""
    image = chain.shards.summary.get("image", {})
    kind = "JPEG" if image.get("format") == "jpg" else str(image.get("dtype", ""))
    scale = image.get("scale_arcsec_per_px")
    size = f"{image.get('width')}×{image.get('height')} px"
    at = f' at {scale:g}"/px' if scale else ""
    origin = "simulated" if is_simulated(chain) else "real"
    return f"{origin} {size} {kind} images in {image.get('channels')} channels{at}"


def training_words(chain: Chain, known: int) -> str:
    """On how many galaxies the network was trained: what the model says, else the catalogue's training split."""
    seen = chain.model.summary.get("galaxies")
    number = int(seen["train"]) if isinstance(seen, dict) and "train" in seen else known
    return f"trained on {number:,} galaxies" if number else "trained on galaxies that are not in this store"


def lead(chain: Chain, sample: Sample, train: pd.DataFrame, apart: Separation) -> str:
    """The sentence that says what was tested on what."""
    number = counts(sample.galaxies)
    split = str(chain.predictions.settings.get("split", "all"))
    survey = chain.catalog.summary.get("survey", "unknown survey")
    network = chain.model.settings.get("model") or chain.model.summary.get("model") or "network"
    trained = training_words(chain, len(train))
    if not number["scored"]:
        return (
            f"{number['predicted']:,} galaxies without known redshifts, on {image_words(chain)} ({survey}), by "
            f"{chain.model.ref} ({network}, {trained}). There is nothing to score: this report shows what the network "
            "says and how sure it is."
        )
    return (
        f"Tested on {number['scored']:,} galaxies of {SPLIT_WORDS.get(split, split)} with spectroscopic redshifts "
        f"({apart.in_words()}), on {image_words(chain)} ({survey}), by {chain.model.ref} ({network}, {trained})."
    )


def banners(chain: Chain, sample: Sample, apart: Separation) -> list[Banner]:
    """What a reader has to know first: simulated images, a score on training galaxies, leaking neighbours."""
    found: list[Banner] = []
    number = counts(sample.galaxies)
    if apart.shared_ids:
        found.append(
            Banner(
                "Not a test.",
                f"{apart.shared_ids:,} of these {number['predicted']:,} galaxies are among those that the network was "
                "trained on. Its scores on them say nothing about other galaxies; quote those of the test split.",
                warning=True,
            )
        )
    elif chain.predictions.settings.get("split") == "val" and number["scored"]:
        found.append(
            Banner(
                "The validation split, not the test split.",
                "The kept epoch and the calibration were chosen on these galaxies, so the scores flatter the network.",
                warning=True,
            )
        )
    if chain.model.summary.get("shuffled_labels"):
        found.append(
            Banner(
                "A control: the network was trained on redshifts dealt out at random.",
                "It must do no better than the mean of the training redshifts; if it does, something leaks.",
                warning=True,
            )
        )
    if apart.neighbours and number["scored"]:
        found.append(
            Banner(
                "Neighbours on both sides.",
                f"{apart.neighbours:,} tested galaxies lie in a {apart.by} that also holds training galaxies; "
                "shared clusters, seeing and calibration can make the scores too good.",
                warning=True,
            )
        )
    if is_simulated(chain):
        found.append(Banner("Simulated images.", _caveat(chain)))
    if 0 < number["scored"] < SMALL:
        found.append(Banner("A small sample.", f"{number['scored']:,} galaxies: mind the errors."))
    unscored = number["with_z_spec"] - number["scored"]
    if unscored:
        found.append(
            Banner("Left out.", f"{unscored:,} galaxies have a z_spec but no finite z_phot and are not scored.", True)
        )
    return found


def _caveat(chain: Chain) -> str:
    """What the survey that drew the images says of them."""
    names = (chain.shards.summary.get("images_from"), chain.catalog.summary.get("survey"))
    known = [survey.caveat for survey in map(find_survey, map(str, names)) if survey and survey.caveat]
    return known[0] if known else "The images were drawn, not observed: the scores are no result about the sky."


def _by_kind(sample: Sample) -> str:
    """How many galaxies carry each flag, where any does."""
    if not sample.flags or not pd.api.types.is_integer_dtype(sample.galaxies["flags"]):
        return ""
    values = sample.galaxies["flags"].to_numpy()
    found = {name: int((values & bit > 0).sum()) for name, bit in sample.flags.items()}
    kinds = [f"{name.lower().replace('_', ' ')} {count:,}" for name, count in found.items() if count]
    return f" ({', '.join(kinds)})" if kinds else ""


def flag_note(sample: Sample, scores: Scores | None) -> str:
    """How many galaxies carry a flag or look unfamiliar, and what the score is without the flagged ones."""
    number = counts(sample.galaxies)
    parts: list[str] = []
    if "flags" in sample.galaxies:
        parts.append(f"{number['flagged']:,} of {number['predicted']:,} galaxies carry a flag{_by_kind(sample)}.")
    if "ood_score" in sample.galaxies and sample.galaxies["ood_score"].notna().any():
        middle, high = np.nanpercentile(sample.galaxies["ood_score"].to_numpy(float), [50, 99])
        parts.append(f"Out-of-distribution score: median {middle:.3g}, 99th percentile {high:.3g}.")
    if scores is not None and scores.unflagged is not None:
        clean = scores.unflagged.metrics["cnn"]["sigma_mad"]
        if clean.value is not None:
            parts.append(f"Without the flagged ones σ_MAD is {clean.value:.4f} on {scores.unflagged.n:,} galaxies.")
    return " ".join(parts)
