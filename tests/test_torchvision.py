"""Backbones of torchvision, where it is installed: an extra, which does not go with torch's CPU wheel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from photoz.artifacts import Artifact
from photoz.errors import BadInput
from tests.training_support import QUICK, drawn_shards, infer, train

pytest.importorskip("torchvision", reason="torchvision is an extra, and does not go with torch's CPU wheel")

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("one_core")]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return drawn_shards(tmp_path_factory.mktemp("torchvision"), 320, (5, 64, 64), "float32")


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "efficientnet_v2_s", "googlenet"])
def test_a_backbone_learns_redshifts_from_five_bands(name: str, shards: Artifact) -> None:
    model = train(shards, replace(QUICK, model=f"torchvision:{name}", epochs=8), name=name)
    history = model.table("history.parquet").to_pandas()
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    predictions = infer(model, shards, name=name)
    tables = [predictions.table(file).to_pandas() for file in predictions.names()]
    assert sum(map(len, tables)) == predictions.summary["galaxies"] > 50
    assert all(np.isfinite(table["z_phot"]).all() for table in tables)


@pytest.mark.parametrize(
    ("name", "why"), [("vit_b_16", "64x64 px"), ("inception_v3", "64x64 px"), ("nonesuch", "no such")]
)
def test_one_that_can_t_take_the_images_is_refused_in_a_line(name: str, why: str, shards: Artifact) -> None:
    with pytest.raises(BadInput, match=why):
        train(shards, replace(QUICK, model=f"torchvision:{name}"), name="refused")


def test_the_same_seed_gives_the_same_weights(shards: Artifact, tmp_path: Path) -> None:
    settings = replace(QUICK, model="torchvision:shufflenet_v2_x0_5")
    first, second = (train(shards, settings, name=f"again-{number}") for number in range(2))
    assert first.payload_sha256 == second.payload_sha256
