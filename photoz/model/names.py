"""Names of networks and their recipes. Apart from the networks, so that settings are checked without torch."""

import importlib.util
from dataclasses import dataclass, replace
from typing import Literal

from photoz.errors import BadInput, did_you_mean

APERTURE_CNN, MENKO2024, TORCHVISION = "aperture-cnn", "menko2024", "torchvision:"
NETWORKS = (APERTURE_CNN, MENKO2024)

# The reference project's: Adam 5e-5 with L2 5e-5, batch 128, 50 epochs, a constant rate, no augmentation or EMA.
_REFERENCE_RATE = 5e-5


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. What the user gives replaces the field of that name."""

    head: Literal["binned", "regression"] = "binned"
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    decoupled_decay: bool = True  # AdamW; else L2 in the gradient, as in plain Adam
    cosine: bool = True  # with warm-up; else a constant rate
    augment: bool = True  # flips and quarter turns
    shift_px: int = 0  # shifts of at most so many pixels, too
    average: float = 0.04  # horizon of the weights' moving average, as a share of all steps; 0 for none
    members: int = 1
    dropout: float = 0.0
    smoothing: float = 0.0075  # of labels: standard deviation as a share of the bins' range


def recipe_for(name: str, training_images: int) -> Recipe:
    """The recipe of a network for a training split of this size. Raises BadInput for an unknown name."""
    check_model_name(name)
    if name == MENKO2024:
        return Recipe(
            head="regression",
            epochs=50,
            batch_size=128,
            learning_rate=_REFERENCE_RATE,
            weight_decay=_REFERENCE_RATE,
            decoupled_decay=False,
            cosine=False,
            augment=False,
            average=0.0,
        )
    # A small sample is seen more often, in smaller batches, by more members, and held back harder.
    small = training_images < 2000
    usual = Recipe(
        epochs=_epochs(180_000, training_images),
        batch_size=64 if small else 128,
        learning_rate=2e-3 if small else 4e-3,
        weight_decay=0.05,
        members=8 if small else 4,
        dropout=0.2 if small else 0.0,
        smoothing=0.04 if small else 0.0075,
        shift_px=1 if small else 0,
    )
    if small or name != APERTURE_CNN:
        return usual
    # With its photometry given it needs fewer epochs, and is as good after half as many steps (docs/design/network.md).
    return replace(usual, epochs=_epochs(130_000, training_images), batch_size=256, learning_rate=6e-3)


def _epochs(seen: int, training_images: int) -> int:
    """As many as show the network `seen` images, but 12 at least and 60 at most."""
    return min(max(round(seen / max(training_images, 1)), 12), 60)


def check_model_name(name: str) -> None:
    """Raise BadInput unless `name` is a network that can be built here."""
    if name in NETWORKS:
        return
    known = f"expected {', '.join(NETWORKS)}, or {TORCHVISION}NAME such as {TORCHVISION}resnet18"
    if not name.startswith(TORCHVISION) or name == TORCHVISION:
        raise BadInput(f"model {name!r}: {known}{did_you_mean(name, NETWORKS)}")
    if importlib.util.find_spec("torchvision") is None:
        raise BadInput(f"model {name!r}: torchvision is not installed; install photoz[vision], or use {APERTURE_CNN}")
