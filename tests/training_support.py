"""Shards of drawn galaxies whose colour tells their redshift, for tests of training and inference."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from photoz.artifacts import Artifact, Destination, Outcome, Ref, load
from photoz.infer import InferSettings, infer_redshifts
from photoz.model.network import Batch
from photoz.shards import ShardSettings
from photoz.train import TrainSettings, train_model
from tests.shards_support import files_table, make_shards, save_catalog

QUICK = TrainSettings(epochs=2, batch_size=32, bins=40, device="cpu")


def drawn_galaxies(count: int, shape: tuple[int, int, int], dtype: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(images (b, c, h, w), redshifts): a round galaxy, the fainter and the redder the farther."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    z = rng.uniform(0.02, 0.4, count)
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    profile = np.exp(-radius / 3.0)
    red = np.linspace(-1, 1, channels) if channels > 1 else np.zeros(1)
    flux_bc = 120 * np.exp(-2 * z)[:, None] * (1 + 1.5 * (z - 0.2)[:, None] * red)
    images = flux_bc[..., None, None] * profile + rng.normal(12, 2, (count, *shape))
    if dtype == "uint8":
        return np.clip(np.rint(images), 0, 255).astype(np.uint8), z
    return images.astype(dtype), z


def batch_of(images: np.ndarray | torch.Tensor, ebv: np.ndarray | None = None) -> Batch:
    """Images (b, c, h, w) as a network is given them; without `ebv` their reddening is unknown."""
    images_bchw = torch.as_tensor(images)
    if ebv is None:
        return Batch.without_context(images_bchw)
    return Batch.of(images_bchw, torch.from_numpy(ebv.astype(np.float32))[:, None])


def drawn_shards(
    folder: Path,
    count: int = 200,
    shape: tuple[int, int, int] = (3, 24, 24),
    dtype: str = "uint8",
    name: str = "drawn",
    samples_per_shard: int = 64,
    **columns: pa.Array,
) -> Artifact:
    """Publish shards of drawn galaxies in a store below `folder`, three fifths of them to train on."""
    images, z = drawn_galaxies(count, shape, dtype)
    return shards_of(folder, images, name, samples_per_shard, **({"z_spec": pa.array(z)} | columns))


def shards_of(
    folder: Path, images: np.ndarray, name: str, samples_per_shard: int = 64, **columns: pa.Array
) -> Artifact:
    """Publish shards of these images (b, c, h, w); `columns` replace or add some of the catalogue's."""
    pictures = folder / f"images-{name}"
    pictures.mkdir(parents=True)
    for number, image in enumerate(images):
        np.save(pictures / f"{number}.npy", image)
    names: list[str | None] = [f"{number}.npy" for number in range(len(images))]
    rows = files_table(pictures, names, **columns)
    catalog = save_catalog(folder / "store", rows, pictures, name)
    return make_shards(catalog, ShardSettings(images="files", samples_per_shard=samples_per_shard, axes="chw"), name)


def train(shards: Artifact, settings: TrainSettings = QUICK, name: str | None = None, force: bool = False) -> Artifact:
    """Run the train job beside the shards and load what it published."""
    outcome = train_model(shards, settings, Destination(shards.store, name or shards.ref.name, force=force))
    return published(shards, outcome)


def infer(
    model: Artifact, shards: Artifact, settings: InferSettings | None = None, name: str | None = None
) -> Artifact:
    """Run the infer job beside the shards and load what it published."""
    dest = Destination(shards.store, name or shards.ref.name)
    return published(shards, infer_redshifts(model, shards, settings or InferSettings(device="cpu"), dest))


def published(beside: Artifact, outcome: Outcome) -> Artifact:
    """The artifact that an outcome names."""
    return load(beside.store, Ref.parse(outcome.artifact))


def job_command(*arguments: str) -> list[str]:
    """A photoz-job command line for this interpreter."""
    return [sys.executable, "-m", "jobs", *arguments]
