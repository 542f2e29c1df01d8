"""From the best weights to a model: calibration, familiarity and the metrics of the validation split."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from photoz.model.calibration import Calibration, fit_calibration
from photoz.model.familiarity import Familiarity
from photoz.model.network import Network
from photoz.model.redshift_model import RedshiftModel, ask
from photoz.model.registry import ImageShape
from photoz.model.residuals import ResidualSpread
from photoz.model.scaling import InputScaling
from photoz.train.pixels import Pixels
from photoz.train.run import VALIDATION_BATCH, Problem
from photoz.train.validation import Validation, validate

_FAMILIARITY_IMAGES = 5000


@dataclass(frozen=True)
class Blueprint:
    """What the network was built from."""

    name: str
    sizes: dict[str, Any]
    image: ImageShape
    scaling: InputScaling


def finish(blueprint: Blueprint, network: Network, problem: Problem) -> tuple[RedshiftModel, Validation]:
    """Calibrate on the validation split, measure which images are familiar, and score the calibrated PDFs."""
    val = ask(network, problem.val.in_order(VALIDATION_BATCH))
    z_spec_b = problem.val.z_spec_b.double().cpu().numpy()
    edges_e = problem.bins.edges
    spread = ResidualSpread.of(val.answer, z_spec_b) if val.answer.ndim == 1 else None
    raw_bz = spread.pdf(val.answer, edges_e) if spread else val.answer
    model = RedshiftModel(
        name=blueprint.name,
        recipe=problem.recipe,
        sizes=blueprint.sizes,
        image=blueprint.image,
        bins=problem.bins,
        scaling=blueprint.scaling,
        network=network,
        # A regression's spread is measured on the validation split as it is: there is nothing left to correct.
        calibration=Calibration() if spread else fit_calibration(raw_bz, edges_e, z_spec_b),
        familiarity=_familiarity(network, problem.train, val.features_bf),
        spread=spread,
    )
    return model, validate(model.pdf(val.answer), problem.bins, z_spec_b, float("nan"))


def _familiarity(network: Network, train: Pixels, val_bf: np.ndarray) -> Familiarity:
    step = -(-len(train) // _FAMILIARITY_IMAGES)
    chosen = np.arange(0, len(train), step)
    batches = (train.take(part)[0] for part in np.array_split(chosen, -(-len(chosen) // VALIDATION_BATCH)))
    return Familiarity.of(ask(network, batches).features_bf, val_bf)
