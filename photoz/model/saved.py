"""A model as files: weights.safetensors and model.json (format 1)."""

import json
import math
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
MOST_DESCRIPTION_BYTES = 2**20
MOST_PIXELS, MOST_IN_A_SIZE, MOST_IN_A_LIST = 2**26, 2**16, 64  # of an image; of any number in `architecture`
SWITCHES = ("reddening",)  # in the architecture; all else there is numbers
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
        "familiarity": {"reference_distance": model.familiarity.reference},
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
        description = _parsed(artifact.read(DESCRIPTION))
        weights = safetensors.torch.load(artifact.read(WEIGHTS))
        familiarity = safetensors.torch.load(artifact.read(FAMILIARITY))
    except (ValueError, RecursionError, SafetensorError) as error:
        raise BadFormat(f"{artifact.ref}: {error}; make the model again") from None
    version = description.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise BadFormat(
            f"{artifact.ref}: model format {version}, this photoz reads up to {FORMAT_VERSION}; use a newer one"
        )
    try:
        return _assemble(description, weights, familiarity, device)
    except (ArithmeticError, AttributeError, LookupError, TypeError, RuntimeError, ValueError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise BadFormat(f"{artifact.ref}: {DESCRIPTION} and {WEIGHTS} don't fit together: {first_line}") from None


def _parsed(data: bytes) -> dict[str, Any]:
    if len(data) > MOST_DESCRIPTION_BYTES:
        raise ValueError(f"{DESCRIPTION} has {len(data)} bytes, at most {MOST_DESCRIPTION_BYTES} are read")
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"{DESCRIPTION} is no JSON object")
    return found


def _assemble(found: dict[str, Any], weights: Tensors, familiarity: Tensors, device: torch.device) -> RedshiftModel:
    recipe, image = Recipe(**found["recipe"]), ImageShape(**found["image"])
    bins, scaling = RedshiftBins.from_json(found["redshift_bins"]), InputScaling.from_json(found["normalisation"])
    _check_sizes(image, bins, scaling, found["architecture"])
    with torch.device("meta"):  # takes no memory, whatever sizes model.json asks for
        planned = weights_planned(build_network(found["model"], found["architecture"], scaling))
    stored = {name: tuple(weight.shape) for name, weight in weights.items()}
    if planned != stored:
        differing = sorted(name for name in planned.keys() | stored.keys() if planned.get(name) != stored.get(name))
        raise ValueError(f"{differing[0]} is {stored.get(differing[0])}, expected {planned.get(differing[0])}")
    for name, values in (weights | familiarity).items():
        if not values.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite numbers")
    network = build_network(found["model"], found["architecture"], scaling)
    network.load_state_dict(weights)
    mean_f, whiten_ff = (familiarity[name].numpy().astype(np.float64) for name in ("mean_f", "whiten_ff"))
    if mean_f.ndim != 1 or whiten_ff.shape != 2 * mean_f.shape:
        raise ValueError(f"familiarity of {mean_f.shape} features and {whiten_ff.shape}")
    reference = float(found["familiarity"]["reference_distance"])
    if not 0 < reference < math.inf:
        raise ValueError(f"familiarity: reference_distance is {reference}, expected a number above 0")
    return RedshiftModel(
        name=found["model"],
        recipe=recipe,
        sizes=found["architecture"],
        image=image,
        bins=bins,
        scaling=scaling,
        network=network.to(device, memory_format=torch.channels_last).eval(),  # type: ignore[call-overload]
        calibration=Calibration.from_json(found["calibration"]),
        familiarity=Familiarity(mean_f, whiten_ff, reference),
        spread=ResidualSpread.from_json(found["residuals"]) if found["residuals"] else None,
    )


def weights_planned(network: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of what `weights_of` would give."""
    return {name: tuple(value.shape) for name, value in network.state_dict().items() if not name.endswith(_COUNTER)}


def _check_sizes(image: ImageShape, bins: RedshiftBins, scaling: InputScaling, sizes: dict[str, Any]) -> None:
    """Raise ValueError for numbers that no network has: it is built from them before its weights are looked at."""
    shape = (image.channels, image.height, image.width)
    if not all(type(size) is int and size > 0 for size in shape) or math.prod(shape) > MOST_PIXELS:
        raise ValueError(f"images of {str(shape)[:60]}")
    if {len(part) for part in (scaling.sky, scaling.noise, scaling.mean, scaling.std)} != {image.channels}:
        raise ValueError(f"normalisation is not of {image.channels} channels")
    if bins.count > MOST_IN_A_SIZE:
        raise ValueError(f"{bins.count} redshift bins, at most {MOST_IN_A_SIZE}")
    for name, value in sizes.items():
        values = value if isinstance(value, list) else [value]
        numbers = all(type(one) in (int, float) and 0 <= one <= MOST_IN_A_SIZE for one in values)
        right = type(value) is bool if name in SWITCHES else numbers
        if not right or len(values) > MOST_IN_A_LIST:
            raise ValueError(f"architecture: {name} = {str(value)[:60]}")
    if (sizes.get("height", image.height), sizes.get("width", image.width)) != (image.height, image.width):
        raise ValueError(f"architecture: it is not for images of {image}")
