"""Networks beside one another on images of two kinds: how good each is after the same time of training.

    python -m benchmarks.networks [--galaxies 10000] [--seconds 150 | --epochs N] [--seeds 1] [--only WORDS]
        [--device cpu]

Draws the embedded sky's galaxies as 128x128x3 JPEGs, as SkyServer gives them, and as 64x64x5 stamps (u to z,
nanomaggies). Each network trains on each kind for about so many seconds, timed on one epoch's steps before: the number
of epochs follows, at least one; or for `--epochs`. With `--seeds` figures are means over so many trainings, and the
standard deviation of one. Only aperture-cnn is told E(B-V). Some of torchvision's networks are among them where it is
installed. The images are simulated, so small differences say nothing about the sky.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import nn
from torch.nn import functional

from benchmarks.accuracy import photoz_job
from benchmarks.gpu import backbones, resident
from photoz.artifacts import Artifact, Ref, load, open_store
from photoz.data import ImageFormat
from photoz.data.image_set import DecodedImages
from photoz.metrics import scaled_residual, sigma_mad
from photoz.model.aperture_cnn import ApertureCNN, ApertureShape, stem_stride
from photoz.model.bins import RedshiftBins
from photoz.model.devices import choose_device, keep_freed_memory
from photoz.model.light import Light
from photoz.model.menko2024 import Menko2024
from photoz.model.names import APERTURE_CNN, MENKO2024, Recipe, recipe_for
from photoz.model.network import Batch, Network
from photoz.model.redshift_model import run_network
from photoz.model.registry import ImageShape, build_network, design
from photoz.model.scaling import InputScaling
from photoz.runtime import World, usable_cores
from photoz.sky.population import build_population
from photoz.sky.render import Renderer
from photoz.sky.request import Cutout
from photoz.train.pixels import Pixels
from photoz.train.problem import Problem
from photoz.train.run import train
from photoz.train.sample import Labelled
from photoz.train.state import State
from photoz.train.validation import Validation, validate

KINDS = {"64x64x5": (64, 5), "128x128x3": (128, 3)}
TIMED_STEPS = 6

Build = Callable[[InputScaling], Network]


class PlainBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a skip, halving the image."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        first = [nn.Conv2d(into, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        self.path = nn.Sequential(*first, nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out))
        self.skip = nn.Conv2d(into, out, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.skip(x) + self.path(x))


class PlainResNet(Network):
    """Residual blocks with batch normalisation on the stretched image, pooled, and a PDF head: the usual choice."""

    def __init__(self, scaling: InputScaling, bins: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.light = Light(scaling)
        self.stem = nn.Conv2d(scaling.channels, widths[0], 5, 2, 2)
        self.blocks = nn.Sequential(*(PlainBlock(a, b) for a, b in pairwise((widths[0], *widths))))
        self.head = nn.Linear(widths[-1], bins)

    def features(self, batch: Batch) -> torch.Tensor:
        pixels_bchw: torch.Tensor = self.blocks(functional.relu(self.stem(self.light.stretched(batch.images_bchw))))
        return pixels_bchw.mean((2, 3))

    def answer(self, features_bf: torch.Tensor) -> torch.Tensor:
        logits_mbz: torch.Tensor = self.head(features_bf)[None]
        return logits_mbz


@dataclass(frozen=True)
class Sample:
    """One kind of images, by split, with redshifts; and where networks are to train on them."""

    splits: dict[str, Labelled]
    device: torch.device

    def pixels(self, split: str) -> Pixels:
        """A split's galaxies, on the device."""
        labelled = self.splits[split]
        images = resident(labelled, self.device) if self.device.type == "cuda" else labelled
        return Pixels(images, self.device, ["ebv"])

    @property
    def bins(self) -> RedshiftBins:
        """Over the range of the training redshifts."""
        return RedshiftBins.covering(self.splits["train"].z_spec, 200)


def candidates(shape: ImageShape, bins: RedshiftBins, galaxies: int) -> dict[str, tuple[Recipe, Build]]:
    """Each network's recipe, and how it is built from the scaling."""
    ours, reference = recipe_for(APERTURE_CNN, galaxies), recipe_for(MENKO2024, galaxies)
    sizes = ApertureShape.from_json(design(APERTURE_CNN, shape, bins, ours))
    plain = replace(ours, members=1, batch_size=128, learning_rate=2e-3)
    stride = stem_stride(shape.height, shape.width)
    finer, coarser = max(1, stride // 2), 2 * stride

    def aperture(**changes: Any) -> Build:
        return lambda scaling: ApertureCNN(scaling, replace(sizes, **changes))

    own = {
        "aperture-cnn (the default)": (ours, aperture()),
        "aperture-cnn, trunk on twice as many pixels a side": (ours, aperture(stride=finer)),
        "aperture-cnn, trunk on half as many pixels a side": (ours, aperture(stride=coarser)),
        "aperture-cnn, trunk 8, 16, 32 wide": (ours, aperture(widths=(8, 16, 32))),
        "aperture-cnn, trunk of two blocks, 32, 64 wide": (ours, aperture(widths=(32, 64))),
        "aperture-cnn, trunk 32, 64, 128 wide": (ours, aperture(widths=(32, 64, 128))),
        "aperture-cnn, one member": (ours, aperture(members=1)),
        "aperture-cnn, not told E(B-V)": (ours, aperture(reddening=False)),
        "residual network, 16 to 128 wide": (plain, lambda s: PlainResNet(s, bins.count, (16, 32, 64, 128))),
        "residual network, 32 to 256 wide": (plain, lambda s: PlainResNet(s, bins.count, (32, 64, 128, 256))),
        "menko2024": (reference, Menko2024),
    }
    return own | {name: backbone(name, shape, bins, galaxies) for name in backbones()}


def backbone(name: str, shape: ImageShape, bins: RedshiftBins, galaxies: int) -> tuple[Recipe, Build]:
    """One of torchvision's, as the train job has it."""
    recipe = recipe_for(name, galaxies)
    return recipe, lambda scaling: build_network(name, design(name, shape, bins, recipe), scaling)


@dataclass(frozen=True)
class Trained:
    """What one training cost, and how good its network is on the test split."""

    parameters: int
    rate: float
    epochs: int
    seconds: float
    tested: Validation


def run(sample: Sample, pixels: Pixels, recipe: Recipe, build: Build, seed: int) -> State:
    """Train on these, from the split train, and validate on the split val."""
    whole = len(sample.splits["train"])
    some, _ = sample.pixels("train").take(np.arange(0, whole, max(1, whole // 2048)))
    torch.manual_seed(seed)
    network = build(InputScaling.of(some.images_bchw.cpu().numpy())).to(sample.device)
    network.prepare(some)
    problem = Problem(pixels, sample.pixels("val"), sample.bins, recipe, seed, sample.device, World())
    state = problem.begin(network)
    train(problem, state)
    return state


def epochs_for(sample: Sample, recipe: Recipe, build: Build, seconds: float) -> int:
    """How many take about so long, from the speed of a few steps."""
    labelled = sample.splits["train"]
    assert isinstance(labelled.images, DecodedImages)
    count = min(TIMED_STEPS * recipe.batch_size, len(labelled))
    first = DecodedImages(labelled.images.stored[:count], labelled.images.table[:count], labelled.images.image)
    few = Pixels(Labelled(first, labelled.z_spec[:count]), sample.device, ["ebv"])
    short = run(sample, few, replace(recipe, epochs=2), build, 0)
    rate = float(short.progress.timings[-1]["train_images_per_s"])
    return max(1, round(seconds * rate / len(labelled)))


def trained(sample: Sample, recipe: Recipe, build: Build, seed: int, epochs: int) -> Trained:
    """Train for so many epochs, and score the best one's weights."""
    done = run(sample, sample.pixels("train"), replace(recipe, epochs=epochs), build, seed)
    rate = statistics.median(row["train_images_per_s"] for row in done.progress.timings)
    parameters = sum(parameter.numel() for parameter in done.network.parameters())
    taken = sum(row["seconds"] for row in done.progress.timings)
    return Trained(parameters, rate, epochs, taken, score(done, sample))


def cells(runs: list[Trained]) -> list[str]:
    """A row of the table: what trainings with several seeds have in common, or their mean and scatter."""

    def scattered(values: list[float | None], digits: int) -> str:
        known = [value for value in values if value is not None]
        if not known:
            return ""
        spread = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
        return f"{statistics.mean(known):.{digits}f}{spread}"

    tested = [run.tested for run in runs]
    return [
        f"{runs[0].parameters:,}",
        f"{statistics.median(run.rate for run in runs):.0f}",
        f"{runs[0].epochs}",
        f"{statistics.median(run.seconds for run in runs):.0f}",
        scattered([one.sigma_mad for one in tested], 4),
        scattered([one.outliers for one in tested], 3),
        scattered([one.crps for one in tested], 5),
    ]


def score(done: State, sample: Sample) -> Validation:
    """The best epoch's weights on the test split."""
    pixels = sample.pixels("test")
    batches = (batch for batch, _ in pixels.batches(np.array_split(np.arange(len(pixels)), 20)))
    return validate(run_network(done.best_network(), batches).answer, sample.bins, sample.splits["test"].z_spec, 0.0)


def trees(catalog: pa.Table, bands: str) -> float:
    """sigma_mad of gradient boosting on magnitudes, trained on train and val."""
    features = np.column_stack([catalog[f"mag_{band}"].to_numpy() for band in bands])
    split, z = catalog["split"].to_numpy(), catalog["z_spec"].to_numpy()
    model = HistGradientBoostingRegressor(random_state=0).fit(features[split != "test"], z[split != "test"])
    z = z[split == "test"]
    return float(sigma_mad(scaled_residual(model.predict(features[split == "test"]), z)))


@lru_cache(maxsize=1)
def renderer() -> Renderer:
    """The embedded sky, in this process."""
    population = build_population()
    return Renderer(population.objects, population.shapes, 0)


def drawn(kind: str, position: tuple[float, float]) -> NDArray[np.generic]:
    """One image as its decoder gives it: (h, w, c) levels, or (c, h, w) nanomaggies."""
    side_px, _ = KINDS[kind]
    cutout = Cutout(*position, width=side_px, height=side_px)
    if kind == "64x64x5":
        return renderer().ugriz(cutout).astype(np.float32)
    return np.asarray(simplejpeg.decode_jpeg(renderer().jpeg(cutout)))


def draw_all(kind: str, catalog: pa.Table, folder: Path) -> NDArray[np.generic]:
    """All images of a kind, drawn once and kept in the folder."""
    path = folder / f"{kind}.npy"
    if not path.exists():
        positions = zip(catalog["ra"].to_pylist(), catalog["dec"].to_pylist(), strict=True)
        with ProcessPoolExecutor(usable_cores()) as pool:
            found = list(pool.map(drawn, [kind] * len(catalog), positions, chunksize=50))
        np.save(path, np.stack(found))
    return np.asarray(np.load(path, mmap_mode="r"))


def sample_of(kind: str, catalog: pa.Table, folder: Path, device: torch.device) -> Sample:
    """Images and redshifts by split."""
    side_px, channels = KINDS[kind]
    stored = draw_all(kind, catalog, folder)
    split, z = catalog["split"].to_numpy(), catalog["z_spec"].to_numpy()
    splits = {}
    for name in ("train", "val", "test"):
        rows = np.flatnonzero(split == name)
        layout = ImageFormat(
            format="npy" if channels == 5 else "jpg",
            channels=channels,
            height=side_px,
            width=side_px,
            dtype=str(stored.dtype),
            source="files",
        )
        images = DecodedImages(stored[rows], catalog.take(rows), layout)
        splits[name] = Labelled(images, np.asarray(z[rows], np.float64))
    return Sample(splits, device)


def galaxies(folder: Path, count: int) -> pa.Table:
    """The embedded sky's catalogue, as the job makes it."""
    store = str((folder / "store").absolute())
    photoz_job("catalog", "--store", store, "--survey", "embedded", "--name", "networks", "--limit", str(count))
    catalog: Artifact = load(open_store(store), Ref("catalog", "networks"))
    return catalog.table("catalog.parquet")


def main() -> None:
    """Measure, and print a table for each kind of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galaxies", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="networks whose name holds these words")
    parser.add_argument("--device", default="cpu", choices=["cuda", "cpu"])
    parser.add_argument("--folder", type=Path, default=Path("build/networks"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(usable_cores())
    keep_freed_memory()
    catalog = galaxies(options.folder, options.galaxies)
    for kind, (side_px, channels) in KINDS.items():
        sample = sample_of(kind, catalog, options.folder, choose_device(options.device))
        counts = {name: len(labelled) for name, labelled in sample.splits.items()}
        on = "GPU" if options.device == "cuda" else f"{torch.get_num_threads()} cores"
        print(f"\n{time.strftime('%Y-%m-%d')}, {on}, {kind}, {counts}\n")
        print("| network | parameters | images/s | epochs | seconds | sigma_mad | outliers | CRPS |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
        shape = ImageShape(channels, side_px, side_px)
        for name, (recipe, build) in candidates(shape, sample.bins, counts["train"]).items():
            if options.only in name:
                seeds = range(options.seeds)
                epochs = options.epochs or epochs_for(sample, recipe, build, options.seconds)
                runs = [trained(sample, recipe, build, seed, epochs) for seed in seeds]
                print(f"| {name} | {' | '.join(cells(runs))} |", flush=True)
        bands = "ugriz" if channels == 5 else "gri"
        print(f"| gradient boosting on {', '.join(bands)} | | | | | {trees(catalog, bands):.4f} | | |", flush=True)


if __name__ == "__main__":
    main()
