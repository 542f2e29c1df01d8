"""card.md: what a person should know before using a model, and on which device it was trained.

A card is written before its version's number is known, so it says how to find it; an exported card begins with it.
"""

from collections.abc import Mapping
from typing import Any

from photoz.artifacts import Artifact
from photoz.model.names import MENKO2024
from photoz.model.redshift_model import RedshiftModel
from photoz.model.saved import weights_of
from photoz.train.validation import OUTLIER, Validation

_ABOUT = {
    MENKO2024: "The network of the reference student project, kept for comparison: one redshift, no PDF of its own.",
}
_ABOUT_DEFAULT = "A convolutional network with a binned PDF head; the default one also measures aperture magnitudes."


def write_card(
    model: RedshiftModel, shards: Artifact, counts: Mapping[str, int], val: Validation, facts: Mapping[str, Any]
) -> str:
    """The card as Markdown. `counts` are galaxies by split, `facts` what else decided the weights, and the name."""
    recipe, bins = model.recipe, model.bins
    parameters = sum(weight.numel() for weight in weights_of(model.network).values())
    optimizer = "AdamW" if recipe.decoupled_decay else "Adam with L2"
    augmentation = "random flips and quarter turns" if recipe.augment else "no augmentation"
    warnings = "".join(f"{text}\n\n" for text in _warnings(shards, facts))
    return f"""# Photometric redshifts: {model.name}

{_ABOUT.get(model.name, _ABOUT_DEFAULT)}

{warnings}| | |
|---|---|
| artifact | the version of `model/{facts["name"]}` with fingerprint `{facts["fingerprint"]}` |
| parameters | {parameters:,} |
| images | {model.image}, {model.scaling.dtype} |
| Galactic reddening | {"an input: E(B-V) of each galaxy" if "ebv" in model.network.used_context else "not an input"} |
| redshift bins | {bins.count} of equal width in log(1 + z), {bins.low:.4f} to {bins.high:.4f} |

## Training data

Shards of payload sha256 `{shards.payload_sha256[:16]}…` (the manifest names them):
{counts["train"]:,} galaxies to train on, {counts["val"]:,} to choose the epoch and the calibration.
Survey: {shards.summary.get("survey", "unknown")}. Images: {_images(shards)}.

## How it was trained

{recipe.epochs} epochs in batches of {recipe.batch_size}; {optimizer}, rate {recipe.learning_rate:g}, weight decay
{recipe.weight_decay:g}; {augmentation}; seed {facts["seed"]}; {facts["world"]} process(es) on {facts["device"]}. Kept:
epoch {facts["best_epoch"]} of {recipe.epochs}, the one with the least `{facts["criterion"]}`
(history.parquet has it for each).

Device: {facts["computed_on"]}.

## Validation split

| metric, with dz = (z_phot - z_spec) / (1 + z_spec) | value |
|---|---|
| sigma_mad of dz | {val.sigma_mad:.4f} |
| mean of dz | {val.bias:+.4f} |
| share of dz beyond {OUTLIER:g} | {100 * val.outliers:.2f} % |
| mean absolute error in z | {val.mae:.4f} |
| CRPS of the calibrated PDFs | {val.crps:.4f} |

The epoch and the calibration were chosen on these galaxies, so the numbers flatter; quote a report's on the test split.

## Limits

- A redshift outside of the bins can't be predicted, and near their ends few galaxies were there to learn from.
- It knows images from the survey, bands, pixel scale and depth of its training data. `ood_score` in the predictions
  exceeds 1 for 1 in 100 validation galaxies, and by far for images unlike those in training: don't trust their PDFs.
- The PDFs are calibrated on average over the validation split, not for each kind of galaxy.

## How to use

`photoz-job artifacts ls --kind model --json` says which version has this fingerprint. With that number for N:
`photoz-job infer --model model/{facts["name"]}@vN --shards shards/NAME`, on shards of the same channels and size.
`weights.safetensors` holds the weights; `model.json` the architecture, bins, normalisation and calibration.
"""


def _warnings(shards: Artifact, facts: Mapping[str, Any]) -> list[str]:
    found = []
    if shards.summary.get("simulated"):
        found.append("**Simulated images.** It was trained on drawn images of real galaxies: do not use it on the sky.")
    if facts["shuffled_labels"]:
        found.append("**A control.** Its training redshifts were dealt out at random; it is meant to know nothing.")
    return found


def _images(shards: Artifact) -> str:
    image = shards.summary["image"]
    scale = image.get("scale_arcsec_per_px")
    return f"{image['format']} from {image['source']}" + (f", {scale:g} arcsec per pixel" if scale else "")
