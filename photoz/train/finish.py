"""From the best weights to a model: calibration, familiarity and the metrics of the validation split."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from photoz.model.calibration import Calibration, fit_calibration
from photoz.model.familiarity import Familiarity
from photoz.model.network import Network
from photoz.model.redshift_model import RedshiftModel
from photoz.model.registry import ImageShape
from photoz.model.residuals import ResidualSpread
from photoz.model.scaling import InputScaling
from photoz.train.forward import in_batches, run_on_first
from photoz.train.problem import Problem
from photoz.train.validation import Validation, validate

_FAMILIARITY_IMAGES = 5000


@dataclass(frozen=True)
class Blueprint:
    """What the network was built from."""

    name: str
    sizes: dict[str, Any]
    image: ImageShape
    scaling: InputScaling


def finish(blueprint: Blueprint, network: Network, problem: Problem) -> tuple[RedshiftModel, Validation] | None:
    """Calibrate on the validation split, measure which images are familiar, and score the calibrated PDFs.

    Rank 0 has the result, the others None. Raises Preempted on all ranks if one is to stop.
    """
    world, device = problem.world, problem.device
    val = run_on_first(network, problem.val, in_batches(len(problem.val)), world, device)
    chosen = np.arange(0, len(problem.train), -(-len(problem.train) // _FAMILIARITY_IMAGES))
    parts = np.array_split(chosen, len(in_batches(len(chosen))))
    train = run_on_first(network, problem.train, parts, world, device)
    if val is None or train is None:
        return None
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
        familiarity=Familiarity.of(train.features_bf, val.features_bf),
        spread=spread,
    )
    return model, validate(model.pdf(val.answer), problem.bins, z_spec_b, float("nan"))
