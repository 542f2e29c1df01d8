"""A trained model: network, bins, calibration and familiarity, and how they turn galaxies' images into PDFs.

Legend: b image, c channel, h row, w column, z redshift bin, f feature.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from photoz.model.bins import RedshiftBins
from photoz.model.calibration import Calibration
from photoz.model.devices import autocast
from photoz.model.familiarity import Familiarity
from photoz.model.names import Recipe
from photoz.model.network import Batch, Network
from photoz.model.orientation import turned
from photoz.model.registry import ImageShape
from photoz.model.residuals import ResidualSpread
from photoz.model.scaling import InputScaling
from photoz.ordered import in_order

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NetworkOutput:
    """What a network says of each galaxy, before calibration: (b, z) masses or (b,) redshifts, and (b, f) features."""

    answer: Floats
    features_bf: Floats


@dataclass(frozen=True)
class RedshiftModel:
    """Everything that inference needs. `spread` is what a regression's PDFs are made from, None for a binned head."""

    name: str
    recipe: Recipe
    sizes: dict[str, Any]
    image: ImageShape
    bins: RedshiftBins
    scaling: InputScaling
    network: Network
    calibration: Calibration
    familiarity: Familiarity
    spread: ResidualSpread | None = None

    def pdf(self, answer: Floats) -> Floats:
        """Calibrated PDFs, (b, z), from a network's answers."""
        return self.calibration.apply(self.spread.pdf(answer, self.bins.edges) if self.spread else answer)


def run_network(
    network: Network, batches: Iterable[Batch], orientations: Sequence[int] = (0,), at_once: int = 1
) -> NetworkOutput:
    """Run the network in evaluation mode over batches on its device, `at_once` at a time.

    Answers are means over the images in these orientations; features are those of the first orientation.
    """
    network.eval()

    @torch.inference_mode()
    def run_one(batch: Batch) -> tuple[Floats, Floats]:
        found = []
        with autocast(batch.images_bchw.device, network.bfloat16_on_cpu):
            batch = network.measure(batch)  # once for all orientations
            for orientation in orientations:
                turned_bchw = turned(batch.images_bchw, orientation) if orientation else batch.images_bchw
                features_bf = network.features(batch._replace(images_bchw=turned_bchw))
                found.append((masses_of(network.answer_float32(features_bf)), features_bf))
        answer = torch.stack([answer for answer, _ in found]).mean(0)
        return _as_floats(answer), _as_floats(found[0][1].float())

    results = map(run_one, batches) if at_once == 1 else in_order(run_one, batches, at_once)
    answers, features = zip(*results, strict=True)
    return NetworkOutput(np.concatenate(answers), np.concatenate(features))


def _as_floats(values: torch.Tensor) -> Floats:
    return np.asarray(values.cpu().numpy(), np.float64)


def masses_of(answer: torch.Tensor) -> torch.Tensor:
    """Members' logits (m, b, z) -> the mean of their PDFs (b, z); a regression's redshifts (b,) stay as they are."""
    return answer.softmax(-1).mean(0) if answer.ndim == 3 else answer
