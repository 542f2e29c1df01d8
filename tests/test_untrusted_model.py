"""A model from a store is files that anyone may have written: read, or refused as broken, before memory is taken."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from photoz.artifacts import Artifact, Destination, Draft, Ref, load, open_store
from photoz.artifacts.manifest import sha256_hex
from photoz.errors import BadFormat, BadInput
from photoz.model.bins import RedshiftBins
from photoz.model.calibration import Calibration
from photoz.model.familiarity import Familiarity
from photoz.model.names import recipe_for
from photoz.model.redshift_model import RedshiftModel
from photoz.model.registry import ImageShape, build_network, design
from photoz.model.saved import load_model, model_files
from photoz.model.scaling import InputScaling
from tests.test_untrusted_bombs import little_memory
from tests.test_untrusted_bytes import altered
from tests.training_support import batch_of

CPU = torch.device("cpu")
__all__ = ["little_memory"]


def files_of(name: str) -> dict[str, bytes]:
    image, bins = ImageShape(3, 32, 32), RedshiftBins(0.0, 0.4, 20)
    scaling = InputScaling("uint8", (0.0,) * 3, (255.0,) * 3, (0.3,) * 3, (0.2,) * 3)
    recipe = recipe_for(name, 5000)
    sizes = design(name, image, bins, recipe)
    network = build_network(name, sizes, scaling)
    with torch.no_grad():
        features = network.features(batch_of(np.zeros((1, 3, 32, 32)))).shape[1]
    familiarity = Familiarity(np.zeros(features), np.eye(features))
    model = RedshiftModel(
        name=name,
        recipe=recipe,
        sizes=sizes,
        image=image,
        bins=bins,
        scaling=scaling,
        network=network,
        calibration=Calibration(),
        familiarity=familiarity,
    )
    return model_files(model)


FILES = files_of("aperture-cnn")
DESCRIPTION = json.loads(FILES["model.json"])


def published(folder: Path, **changed: bytes) -> Artifact:
    """The model with some of its files replaced, as whoever can write to a store would publish it."""
    store = open_store(str(folder))
    files = FILES | {name.replace("_", "."): data for name, data in changed.items()}
    digests = {name: sha256_hex(data) for name, data in files.items()}
    with Draft.begin(Destination(store, "m"), kind="model", recipe=1, settings=digests) as draft:
        if draft.published:
            return load(store, Ref.parse(draft.published.artifact))
        for name, data in files.items():
            draft.put(name, data)
        draft.commit({})
    return load(store, Ref("model", "m"))


def with_changes(*path: Any, to: Any) -> bytes:
    """model.json with the value at `path` replaced."""
    document = json.loads(FILES["model.json"])
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return json.dumps(document).encode()


@pytest.mark.parametrize("name", ["aperture-cnn", "menko2024"])
def test_a_model_is_read_back(name: str, tmp_path: Path) -> None:
    files = {key.replace(".", "_"): data for key, data in files_of(name).items()}
    assert load_model(published(tmp_path, **files), CPU).name == name


@pytest.mark.parametrize(
    "description",
    [
        with_changes("architecture", "hidden", to=10**9),
        with_changes("architecture", "hidden", to=4096),
        with_changes("architecture", "members", to=10**6),
        with_changes("architecture", "members", to=10**4),
        with_changes("architecture", "height", to=60_000),
        with_changes("architecture", "widths", to=[8] * 10_000),
        with_changes("architecture", "widths", to=[]),
        with_changes("architecture", "radii_px", to=["1"]),
        with_changes("architecture", "reddening", to=2),
        with_changes("architecture", "reddening", to=[True]),
        with_changes("architecture", "stride", to=True),
        with_changes("architecture", to=[]),
        with_changes("image", "height", to=10**9),
        with_changes("image", "channels", to=5),
        with_changes("redshift_bins", "count", to=10**12),
        with_changes("normalisation", "mean", to=[0.1]),
        with_changes("normalisation", "mean", to=[0.1] * 10_000),
        with_changes("familiarity", to=None),
        with_changes("recipe", to=None),
        b"[]",
        b"3",
        b"[" * 100_000,
        b"\xff",
        b" " * 2**21 + FILES["model.json"],
    ],
)
@pytest.mark.usefixtures("little_memory")
def test_a_description_that_asks_for_another_network_than_the_weights_are_is_refused(
    description: bytes, tmp_path: Path
) -> None:
    with pytest.raises(BadFormat):
        load_model(published(tmp_path, model_json=description), CPU)


def test_sizes_are_compared_with_the_weights_before_a_network_is_built(tmp_path: Path) -> None:
    members = with_changes("architecture", "members", to=10_000)
    with pytest.raises(BadFormat, match=r"head\.1\.bias is \(4, 1, 20\), expected \(10000, 1, 20\)"):
        load_model(published(tmp_path, model_json=members), CPU)


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\xff" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        safetensors.torch.save({"a": torch.zeros(3)}),
        FILES["weights.safetensors"][:-4],
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    ],
)
def test_weights_that_are_broken_or_anothers_are_refused(weights: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadFormat):
        load_model(published(tmp_path, weights_safetensors=weights), CPU)
    with pytest.raises(BadFormat):
        load_model(published(tmp_path / "2", familiarity_safetensors=weights), CPU)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.usefixtures("little_memory")
def test_an_altered_description_gives_a_model_or_a_clear_error(tmp_path: Path, data: st.DataObject) -> None:
    document = altered(DESCRIPTION, data)
    try:
        load_model(published(tmp_path, model_json=json.dumps(document).encode()), CPU)
    except (BadFormat, BadInput) as error:
        assert len(str(error)) < 2000
