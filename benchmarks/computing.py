"""Training and inference beside the limits of this machine's CPU.

    python -m benchmarks.computing [--rounds 5]

Takes drawn galaxies: the figures are about speed, not about redshifts. Every figure is a ratio taken in one run,
alternated; the median over the rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.loading import decode_all, members
from benchmarks.ratios import Row, alternated, cost, print_table, ratio
from photoz.artifacts import Artifact, Destination, Ref, load
from photoz.data import ImageFormat, Images, open_shards
from photoz.data.batches import to_device
from photoz.data.image_set import DecodedImages
from photoz.infer import InferSettings, infer_redshifts
from photoz.model.bins import RedshiftBins
from photoz.model.devices import has_bfloat16, keep_freed_memory
from photoz.model.names import APERTURE_CNN, MENKO2024, Recipe, recipe_for
from photoz.model.network import Batch, Network
from photoz.model.redshift_model import run_network
from photoz.model.registry import ImageShape, build_network, design
from photoz.model.saved import load_model
from photoz.model.scaling import InputScaling
from photoz.runtime import World, usable_cores
from photoz.shards import ShardSettings
from photoz.tables.predictions import encode_predictions
from photoz.train.losses import BinnedLoss, Loss, squared_error
from photoz.train.optimizer import make_optimizer
from photoz.train.pixels import Pixels
from photoz.train.problem import Problem
from photoz.train.run import train
from photoz.train.sample import Labelled, load_labelled
from photoz.train.timing import StepClock
from tests.shards_support import files_table, make_shards, save_catalog
from tests.training_support import drawn_galaxies

CPU = torch.device("cpu")
LARGER_BATCH = 128  # than infer's own


def drawn(count: int, side_px: int) -> tuple[DecodedImages, np.ndarray]:
    """Images in memory and their redshifts."""
    images, z = drawn_galaxies(count, (3, side_px, side_px), "uint8")
    layout = ImageFormat(format="jpg", channels=3, height=side_px, width=side_px, dtype="uint8", source="files")
    return DecodedImages(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), pa.table({"z_spec": z}), layout), z


def fresh(
    name: str, side_px: int, recipe: Recipe, images: Images, device: torch.device = CPU
) -> tuple[Network, RedshiftBins]:
    """An untrained network for such images."""
    bins = RedshiftBins.covering(np.array([0.02, 0.4]), 200)
    shape = ImageShape(images.image.channels, side_px, side_px)
    some = images.take_bchw(np.arange(min(len(images), 256)))
    network = build_network(name, design(name, shape, bins, recipe), InputScaling.of(some))
    network.to(device).prepare(Batch.without_context(to_device(some, device), len(network.context)))
    return network.to(memory_format=torch.channels_last), bins  # type: ignore[call-overload]


def product_rate(dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of a large matrix product: of sgemm, unless another type is asked for."""
    n = 2048
    a, b, out = (torch.randn(n, n).to(dtype) for _ in range(3))
    return 2 * n**3 / min(cost(lambda: torch.mm(a, b, out=out)).wall for _ in range(3))


def flops_an_image(network: Network, bins: RedshiftBins, recipe: Recipe, images: DecodedImages) -> float:
    """Of forward and backward, as torch counts them: convolutions and matrix products."""
    batch = to_device(images.take_bchw(np.arange(32)), CPU)
    measured = network.measure(Batch.without_context(batch, len(network.context)))  # once a galaxy, not in each step
    with FlopCounterMode(display=False) as counter:
        answer = network(*measured)
        loss_of(recipe, bins)(answer, torch.full((32,), 0.1)).backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops() / 32)


def loss_of(recipe: Recipe, bins: RedshiftBins, device: torch.device = CPU) -> Loss:
    """The loss of a network's recipe."""
    return BinnedLoss(bins, recipe.smoothing, device) if recipe.head == "binned" else squared_error


def training_figures(name: str, side_px: int, count: int, rounds: int) -> list[Row]:
    """An epoch without its validation against a matrix product, and its wait for data."""
    images, z = drawn(count, side_px)
    recipe = replace(recipe_for(name, 8000), epochs=1)
    flops = flops_an_image(*fresh(name, side_px, recipe, images), recipe, images)
    shares, halves, waits = [], [], []
    in_bfloat16 = fresh(name, side_px, recipe, images)[0].bfloat16_on_cpu and has_bfloat16("cpu")
    for _ in range(rounds):
        network, bins = fresh(name, side_px, recipe, images)
        pixels = Pixels(Labelled(images, z), CPU, network.context)
        problem, clock = Problem(pixels, pixels, bins, recipe, 0, CPU, World()), StepClock()
        state = problem.begin(network)
        limit = product_rate()
        train(problem, state, clock=clock)
        spent = sum(clock.total.values())
        shares.append(flops * count / spent / ((limit + product_rate()) / 2))
        halves.append(flops * count / spent / product_rate(torch.bfloat16) if in_bfloat16 else 0.0)
        waits.append(clock.total["data_wait"] / spent)
    share, wait = statistics.median(shares), statistics.median(waits)
    title = f"{name} {side_px}x{side_px}x3: training FLOP/s of a large sgemm's ({flops / 1e9:.2g} GFLOP an image)"
    of_half = ("the same, of a large bfloat16 product's: it trains in that", "", "", f"{statistics.median(halves):.0%}")
    rows = [(title, "65 %", "80 %", f"{share:.0%}"), *([of_half] if in_bfloat16 else [])]
    return [*rows, (f"{name}: data wait", "5 %", "", f"{wait:.1%}")]


def jpeg_shards(
    folder: Path, count: int, side_px: int, samples_per_shard: int = 1000, drawn: int | None = None
) -> Artifact:
    """Shards of JPEG files, four fifths of them to train on; if only some are `drawn`, those come again and again."""
    folder.mkdir()
    images, z = drawn_galaxies(drawn or count, (3, side_px, side_px), "uint8")
    (folder / "pictures").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / "pictures" / f"{number}.jpg", quality=90)
    names: list[str | None] = [f"{number % len(images)}.jpg" for number in range(count)]
    splits = pa.array([("train", "train", "train", "train", "val")[i % 5] for i in range(count)])
    rows = files_table(folder / "pictures", names, z_spec=pa.array(np.resize(z, count)), split=splits)
    catalog = save_catalog(folder / "store", rows, folder / "pictures")
    return make_shards(catalog, ShardSettings(images="files", samples_per_shard=samples_per_shard))


def train_once(shards: Artifact, name: str) -> None:
    """`photoz-job train`, an epoch of this network."""
    command = [sys.executable, "-m", "jobs", "train", "--store", shards.store.url, "--shards", "shards/made"]
    command += ["--name", name, "--model", name, "--epochs", "1", "--device", "cpu"]
    subprocess.run(command, check=True, capture_output=True)


def infer_figures(shards: Artifact, name: str, side_px: int, rounds: int) -> list[Row]:
    """The whole infer job in this process against the network alone, on images that are decoded already.

    The network alone takes infer's batches or larger ones, whichever are faster. Files have to be decoded, too: the job
    is also held against the network and bare decoding one after the other, each on all cores.
    """
    train_once(shards, name)
    model = load(shards.store, Ref("model", name))
    trained = load_model(model, CPU)
    images = Pixels(load_labelled(open_shards(shards), "train", "memory"), CPU, trained.network.context)
    settings = InferSettings(split="train", device="cpu")
    number = count()

    def bare(batch_size: int) -> Callable[[], None]:
        parts = np.array_split(np.arange(len(images)), -(-len(images) // batch_size))
        batches = [batch for batch, _ in images.batches(parts)]

        def run() -> None:
            torch.set_num_threads(usable_cores())
            run_network(trained.network, batches)

        return run

    def job() -> None:
        infer_redshifts(model, shards, settings, Destination(shards.store, f"bench-{next(number)}"))

    jpegs = members(shards)
    assert len(jpegs) == len(images)
    shares = [decode_all(jpegs[core :: usable_cores()], side_px) for core in range(usable_cores())]

    def decode() -> None:
        with ThreadPoolExecutor(len(shares)) as pool:
            list(pool.map(lambda share: share(), shares))

    own = settings.images_a_batch("cpu", 3 * side_px**2)
    found = alternated({"own": bare(own), "large": bare(LARGER_BATCH), "decode": decode, "job": job}, rounds)
    made = load(shards.store, Ref("predictions", "bench-0"))
    tables = [made.table(f"{piece}.parquet") for piece in open_shards(shards).shard_names("train")]
    written = statistics.median(
        cost(lambda: [encode_predictions(table) for table in tables]).cpu for _ in range(rounds)
    )
    title = f"infer, {name} {side_px}x{side_px}x3, {len(images)} JPEGs to Parquet"
    faster = min(("own", "large"), key=lambda bare: statistics.median(one.wall for one in found[bare]))
    speed = ratio(found[faster], found["job"])
    with_decoding = speed + ratio(found["decode"], found["job"])
    share = written / statistics.median(each.cpu for each in found["job"])
    return [
        (f"{title}, of the bare forward's speed", "0.9", "0.97", f"{speed:.2f}"),
        ("the same, of the speed of bare decoding and then the bare forward", "", "", f"{with_decoding:.2f}"),
        (f"{title}: CPU to write Parquet", "2 %", "", f"{share:.1%}"),
    ]


class Pictures(Dataset[tuple[torch.Tensor, float]]):
    """As in many a script: open the file, flip it at random, make it a float tensor."""

    def __init__(self, folder: Path, z: np.ndarray, chosen: np.ndarray) -> None:
        self.folder, self.z, self.chosen = folder, z, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        number = int(self.chosen[index])
        with Image.open(self.folder / f"{number}.jpg") as picture:
            image = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous().float().div(255)
        if np.random.random() < 0.5:
            image = image.flip(2)
        if np.random.random() < 0.5:
            image = image.flip(1)
        return image, float(self.z[number])


def plain_epochs(data: Pictures, name: str, side_px: int, recipe: Recipe) -> Callable[[], None]:
    """The same network trained by a plain script: fp32, DataLoader with two workers."""
    images, _ = drawn(256, side_px)

    def run() -> None:
        torch.set_num_threads(usable_cores())
        network, bins = fresh(name, side_px, recipe, images)
        loss, optimizer = loss_of(recipe, bins), make_optimizer(network, recipe)
        loader = DataLoader(data, batch_size=recipe.batch_size, shuffle=True, num_workers=2)
        for _ in range(recipe.epochs):
            network.train()
            for batch, redshifts in loader:
                value = loss(network(*Batch.without_context(batch * 255.0, len(network.context))), redshifts.float())
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                value.item()

    return run


def plain_figure(shards: Artifact, folder: Path, name: str, side_px: int, rounds: int) -> Row:
    """Whole epochs, from files, decoding and validation left to each side's own ways; no validation on either."""
    epochs = 3
    table = load(shards.store, Ref("catalog", "made")).table("catalog.parquet").to_pandas()
    chosen = np.flatnonzero(table["split"].to_numpy() == "train")
    z = table["z_spec"].to_numpy()
    recipe = replace(recipe_for(name, len(chosen)), epochs=epochs)

    def ours() -> None:
        torch.set_num_threads(usable_cores())
        images = open_shards(shards).load("train", "memory")
        network, bins = fresh(name, side_px, recipe, images)
        labels = np.asarray(images.table["z_spec"].to_numpy(), np.float64)
        pixels = Pixels(Labelled(images, labels), CPU, network.context)
        few = Pixels(Labelled(drawn(128, side_px)[0], labels[:128]), CPU, network.context)
        problem = Problem(pixels, few, bins, recipe, 0, CPU, World())
        train(problem, problem.begin(network))

    plain = plain_epochs(Pictures(folder / "pictures", z, chosen), name, side_px, recipe)
    found = alternated({"plain": plain, "ours": ours}, rounds)
    title = f"{name} {side_px}x{side_px}x3, {epochs} epochs, times a plain PyTorch script's speed"
    return title, "1.3x", "", f"{ratio(found['plain'], found['ours']):.2f}x"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=2500)
    options = parser.parse_args()
    torch.set_num_threads(usable_cores())
    keep_freed_memory()  # as the jobs do; the plain script has it, too
    print(f"{time.strftime('%Y-%m-%d')}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="photoz-computing-") as temporary:
        folder = Path(temporary)
        few = jpeg_shards(folder / "few", options.images, 64)
        many = jpeg_shards(folder / "many", 5 * options.images, 64)
        large = jpeg_shards(folder / "large", options.images // 4, 128, 125)
        figures: list[Callable[[], list[Row]]] = [
            lambda: training_figures(MENKO2024, 128, 256, options.rounds),
            lambda: training_figures(APERTURE_CNN, 64, 2000, options.rounds),
            lambda: infer_figures(large, MENKO2024, 128, options.rounds),
            lambda: infer_figures(many, APERTURE_CNN, 64, options.rounds),
            lambda: [plain_figure(few, folder / "few", APERTURE_CNN, 64, options.rounds)],
        ]
        rows = []
        for figure in figures:
            rows += figure()
            print(f"{time.strftime('%H:%M:%S')} {rows[-1]}", file=sys.stderr)
    print_table(rows)


if __name__ == "__main__":
    main()
