"""A model as files: weights.safetensors and model.json (format 1)."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from photoz.artifacts import Artifact
from photoz.errors import BadFormat, BadInput
from photoz.model.bins import RedshiftBins
from photoz.model.calibration import Calibration
from photoz.model.familiarity import Familiarity
from photoz.model.names import Recipe
from photoz.model.network import Network
from photoz.model.redshift_model import RedshiftModel
from photoz.model.registry import ImageShape, build_network
from photoz.model.residuals import ResidualSpread
from photoz.model.scaling import InputScaling

Tensors = dict[str, torch.Tensor]

FORMAT_VERSION = 1
WEIGHTS, DESCRIPTION, FAMILIARITY = "weights.safetensors", "model.json", "familiarity.safetensors"
_COUNTER = "num_batches_tracked"  # batch norms carry it, and don't use it


def model_files(model: RedshiftModel) -> dict[str, bytes]:
    """The model's payload files by name."""
    weights = weights_of(model.network)
    familiarity = {
        "mean_f": torch.from_numpy(model.familiarity.mean_f.astype(np.float32)),
        "whiten_ff": torch.from_numpy(model.familiarity.whiten_ff.astype(np.float32)),
    }
    description = {
        "format_version": FORMAT_VERSION,
        "model": model.name,
        "recipe": asdict(model.recipe),
        "architecture": model.sizes,
        "image": asdict(model.image),
        "parameters": sum(weight.numel() for weight in weights.values()),
        "redshift_bins": model.bins.to_json(),
        "normalisation": model.scaling.to_json(),
        "calibration": model.calibration.to_json(),
        "residuals": model.spread.to_json() if model.spread else None,
        "familiarity": {"reference_distance": round(model.familiarity.reference, 8)},
    }
    return {
        WEIGHTS: safetensors.torch.save(weights),
        FAMILIARITY: safetensors.torch.save(familiarity),
        DESCRIPTION: json.dumps(description, indent=1, sort_keys=True).encode() + b"\n",
    }


def weights_of(network: Network) -> dict[str, torch.Tensor]:
    """What training has decided: weights and the statistics of normalising layers, on the CPU."""
    state = network.state_dict()
    return {name: value.detach().cpu().contiguous() for name, value in state.items() if not name.endswith(_COUNTER)}


def load_model(artifact: Artifact, device: torch.device) -> RedshiftModel:
    """Read a model on to `device`. Raises BadInput for another kind, BadFormat for files that don't fit together."""
    if artifact.ref.kind != "model":
        raise BadInput(f"{artifact.ref}: expected an artifact of kind model")
    try:
        description = json.loads(artifact.read(DESCRIPTION))
        weights = safetensors.torch.load(artifact.read(WEIGHTS))
        familiarity = safetensors.torch.load(artifact.read(FAMILIARITY))
    except (ValueError, SafetensorError) as error:
        raise BadFormat(f"{artifact.ref}: {error}; make the model again") from None
    version = description.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise BadFormat(
            f"{artifact.ref}: model format {version}, this photoz reads up to {FORMAT_VERSION}; use a newer one"
        )
    try:
        return _assemble(description, weights, familiarity, device)
    except (KeyError, TypeError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise BadFormat(f"{artifact.ref}: {DESCRIPTION} and {WEIGHTS} don't fit together: {first_line}") from None


def _assemble(found: dict[str, Any], weights: Tensors, familiarity: Tensors, device: torch.device) -> RedshiftModel:
    recipe, image = Recipe(**found["recipe"]), ImageShape(**found["image"])
    bins, scaling = RedshiftBins.from_json(found["redshift_bins"]), InputScaling.from_json(found["normalisation"])
    network = build_network(found["model"], found["architecture"], scaling)
    network.load_state_dict(weights)
    mean_f, whiten_ff = (familiarity[name].numpy().astype(np.float64) for name in ("mean_f", "whiten_ff"))
    return RedshiftModel(
        name=found["model"],
        recipe=recipe,
        sizes=found["architecture"],
        image=image,
        bins=bins,
        scaling=scaling,
        network=network.to(device, memory_format=torch.channels_last).eval(),  # type: ignore[call-overload]
        calibration=Calibration.from_json(found["calibration"]),
        familiarity=Familiarity(mean_f, whiten_ff, float(found["familiarity"]["reference_distance"])),
        spread=ResidualSpread.from_json(found["residuals"]) if found["residuals"] else None,
    )
