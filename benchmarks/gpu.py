"""Training and inference on one GPU, beside what its arithmetic and its memory would allow.

    python -m benchmarks.gpu [--rounds 5] [--compiled]

Takes drawn galaxies: the figures are about speed. Limits are measured in the same run: a large bfloat16 matrix product,
a copy within the GPU's memory, a copy to it. `--compiled` takes a minute or two more, for torch.compile. `--device cpu
--images 256` only shows that the script works.
"""

import argparse
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.computing import fresh, loss_of
from benchmarks.gpu_infer import infer_rows
from benchmarks.ratios import Row, print_table
from photoz.data import ImageFormat
from photoz.data.batches import on_device, to_device
from photoz.data.decode import decode_into
from photoz.data.image_set import DecodedImages
from photoz.data.resident import ResidentImages
from photoz.model.bins import RedshiftBins
from photoz.model.devices import autocast
from photoz.model.names import APERTURE_CNN, MENKO2024, TORCHVISION, Recipe, recipe_for
from photoz.model.network import Batch, Network
from photoz.model.redshift_model import run_network
from photoz.runtime import World, usable_cores
from photoz.train.graphs import RecordedSteps
from photoz.train.optimizer import make_optimizer
from photoz.train.pixels import Pixels
from photoz.train.problem import Problem
from photoz.train.run import train
from photoz.train.sample import Labelled
from photoz.train.timing import StepClock
from tests.training_support import drawn_galaxies

LARGE_BATCH, REFERENCE_IMAGES, REFERENCE_EPOCHS = 512, 8000, 50


@dataclass(frozen=True)
class Bench:
    """Where to measure, and how often."""

    device: torch.device
    images: int
    rounds: int

    def seconds(self, work: Callable[[], object]) -> float:
        """Median seconds of a go, the device waited for; a first go is not counted."""
        found = []
        for _ in range(self.rounds + 1):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - started)
        return statistics.median(found[1:])

    def wait(self) -> None:
        """Until the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Limits:
    """What the device can do: FLOP/s of a matrix product, and bytes/s within its memory and to it."""

    flops: float
    memory: float
    copy: float

    @classmethod
    def of(cls, bench: Bench) -> "Limits":
        """Measure them."""
        cuda = bench.device.type == "cuda"
        n, size, times = (8192, 2**30, 50) if cuda else (512, 2**24, 2)
        a = torch.randn(n, n, device=bench.device, dtype=torch.bfloat16 if cuda else torch.float32)
        here = torch.empty(size, dtype=torch.uint8, pin_memory=cuda)
        there, other = (torch.empty(size, dtype=torch.uint8, device=bench.device) for _ in range(2))

        def rate(amount: float, work: Callable[[], object]) -> float:
            # Many in one go: a GPU's clocks take a while to rise.
            return times * amount / bench.seconds(lambda: [work() for _ in range(times)])

        return cls(
            rate(2 * n**3, lambda: torch.mm(a, a)),
            rate(2 * size, lambda: other.copy_(there)),
            rate(size, lambda: there.copy_(here, non_blocking=True)),
        )


@dataclass
class Use:
    """Share of the time in which the GPU was busy, as nvidia-smi says every half second."""

    found: list[float] = field(default_factory=list)

    @contextmanager
    def watched(self, device: torch.device) -> Iterator[None]:
        """Look while the block runs."""
        over = threading.Event()

        def look() -> None:
            card = f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"
            command = ["nvidia-smi", card, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            while not over.wait(0.5):
                said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
                if said.isdigit():  # part of a card has no figure of its own
                    self.found.append(float(said))

        thread = threading.Thread(target=look, daemon=True)
        if device.type == "cuda":
            thread.start()
        try:
            yield
        finally:
            over.set()
            if device.type == "cuda":
                thread.join()

    def __str__(self) -> str:
        return f"{statistics.mean(self.found):.0f}%" if self.found else "unknown"


@dataclass(frozen=True)
class Case:
    """A network on images of a kind."""

    name: str
    channels: int
    side_px: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {self.side_px}x{self.side_px}x{self.channels}"

    @property
    def recipe(self) -> Recipe:
        """Its own, for a few epochs."""
        return replace(recipe_for(self.name, REFERENCE_IMAGES), epochs=6)

    @property
    def image_bytes(self) -> int:
        """Of one image as it is stored."""
        return self.channels * self.side_px**2 * np.dtype(self.dtype).itemsize

    def network(self, labelled: Labelled, device: torch.device) -> tuple[Network, RedshiftBins]:
        """An untrained network for such images."""
        assert isinstance(labelled.images, DecodedImages)
        return fresh(self.name, self.side_px, self.recipe, labelled.images, device)

    def drawn(self, count: int) -> Labelled:
        """Images in memory, with redshifts."""
        few, z = drawn_galaxies(min(count, 500), (self.channels, self.side_px, self.side_px), self.dtype)
        images, z = np.resize(few, (count, *few.shape[1:])), np.resize(z, count)
        kind = "jpg" if self.dtype == "uint8" else "npy"
        shape = {"channels": self.channels, "height": self.side_px, "width": self.side_px}
        layout = ImageFormat(format=kind, dtype=self.dtype, source="files", **shape)  # type: ignore[arg-type]
        stored = np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if kind == "jpg" else images
        return Labelled(DecodedImages(stored, pa.table({"z_spec": z}), layout), z)


CASES = (Case(MENKO2024, 3, 128, "uint8"), Case(APERTURE_CNN, 5, 64, "float32"))


def backbones() -> list[str]:
    """Some of torchvision's networks, where it is installed."""
    some = ("resnet18", "convnext_tiny", "efficientnet_v2_s")
    return [TORCHVISION + name for name in some] if find_spec("torchvision") else []


def resident(labelled: Labelled, device: torch.device) -> Labelled:
    """The same images, on the device."""
    images = labelled.images
    assert isinstance(images, DecodedImages)
    return Labelled(ResidentImages(to_device(images.stored, device), images.table, images.image), labelled.z_spec)


def flops(case: Case, network: Network, bins: RedshiftBins, batch: Batch, training: bool) -> float:
    """FLOPs an image of a forward pass, and of the backward pass, as torch counts them."""
    if training:
        batch = network.measure(batch)  # once a galaxy, not in each step
    with FlopCounterMode(display=False) as counter:
        answer = network(*batch)
        if training:
            redshifts = torch.full((len(batch.images_bchw),), 0.1, device=batch.images_bchw.device)
            loss_of(case.recipe, bins, redshifts.device)(answer, redshifts).backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / len(batch.images_bchw)


def training_rows(case: Case, bench: Bench, limits: Limits) -> list[Row]:
    """Images a second in the epochs after the first, images on the device; and read from this machine's memory."""
    labelled = case.drawn(bench.images)
    network, bins = case.network(labelled, bench.device)
    needed = flops(
        case, network, bins, Pixels(labelled, bench.device, network.context).take(np.arange(32))[0], training=True
    )
    rows = []
    few = Pixels(case.drawn(1000), bench.device, network.context)
    there = resident(labelled, bench.device)
    for batch_size, images in ((case.recipe.batch_size, there), (LARGE_BATCH, there), (LARGE_BATCH, labelled)):
        network, bins = case.network(labelled, bench.device)
        recipe = replace(case.recipe, batch_size=batch_size)
        pixels = Pixels(images, bench.device, network.context)
        problem = Problem(pixels, few, bins, recipe, 0, bench.device, World())
        state, clock, use = problem.begin(network), StepClock(), Use()
        with use.watched(bench.device):
            train(problem, state, clock=clock)
        rate = statistics.median(row["train_images_per_s"] for row in state.progress.timings[1:])
        wait = clock.total["data_wait"] / sum(clock.total.values())
        where = "images on the device" if images is there else "images copied a batch at a time"
        found = f"{rate:.0f}, data wait {wait:.1%}, GPU use {use}"
        copied = "" if images is there else f"{limits.copy / case.image_bytes:.0f}"
        title = f"training, {case}, batches of {batch_size}, {where}"
        rows.append((title, f"{limits.flops / needed:.0f}", copied, found))
    return rows


def inference_row(case: Case, bench: Bench, limits: Limits) -> Row:
    """Images a second of the network alone, as infer asks it."""
    labelled = case.drawn(min(bench.images, 16 * LARGE_BATCH))
    network, bins = case.network(labelled, bench.device)
    parts = np.array_split(np.arange(len(labelled)), -(-len(labelled) // LARGE_BATCH))
    batches = [Pixels(labelled, bench.device, network.context).take(part)[0] for part in parts]
    needed = flops(
        case,
        network.eval(),
        bins,
        Pixels(labelled, bench.device, network.context).take(np.arange(32))[0],
        training=False,
    )
    rate = len(labelled) / bench.seconds(lambda: run_network(network, batches))
    return f"inference, {case}, the network alone", f"{limits.flops / needed:.0f}", "", f"{rate:.0f}"


def step_rows(case: Case, bench: Bench, with_compiled: bool) -> list[Row]:
    """One step's gradients and optimizer: as torch starts them, recorded as a CUDA graph, and compiled."""
    size = case.recipe.batch_size
    labelled = case.drawn(size)
    first, z_spec_b = Pixels(labelled, bench.device, case.network(labelled, bench.device)[0].context).take(
        np.arange(size)
    )

    def steps(compiled: bool, recorded: bool) -> Callable[[], object]:
        network, bins = case.network(labelled, bench.device)
        optimizer, loss = make_optimizer(network, case.recipe), loss_of(case.recipe, bins, bench.device)
        called = torch.compile(network) if compiled else network

        def step(batch: Batch, z_spec_b: torch.Tensor) -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            with autocast(bench.device, network.bfloat16_on_cpu):
                answer = called(*batch)
            value = loss(answer, z_spec_b)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return value.detach()

        take = RecordedSteps(step) if recorded and bench.device.type == "cuda" else step
        batch = network.measure(first)
        for _ in range(5):
            take(batch, z_spec_b)
        return lambda: [take(batch, z_spec_b) for _ in range(20)]

    plain, rows = bench.seconds(steps(False, False)), []
    for words, compiled, recorded in (
        ("recorded as a CUDA graph", False, True),
        ("compiled", True, False),
        ("compiled and recorded", True, True),
    ):
        if compiled and not with_compiled:
            continue
        started = time.perf_counter()
        ready = steps(compiled, recorded)
        first = f", {time.perf_counter() - started:.0f} s until it is ready" if compiled else ""
        found = f"{plain / bench.seconds(ready):.2f} times as fast as {plain / 20 * 1e3:.2f} ms{first}"
        rows.append((f"training step, {case}, batches of {size}, {words}", "", "", found))
    return rows


def copy_row(case: Case, bench: Bench, limits: Limits) -> Row:
    """Batches through on_device, of the copy rate."""
    images = case.drawn(min(bench.images, 16 * LARGE_BATCH)).images
    assert isinstance(images, DecodedImages)
    parts = np.array_split(np.arange(len(images)), -(-len(images) // LARGE_BATCH))
    made = [images.take_bchw(part) for part in parts]
    seconds = bench.seconds(lambda: sum(1 for _ in on_device(made, bench.device)))
    rate = sum(batch.nbytes for batch in made) / seconds
    return (
        f"batches to the device, through pinned memory, {case}",
        "",
        f"{limits.copy / 1e9:.1f} GB/s",
        f"{rate / limits.copy:.0%}",
    )


def decode_row(bench: Bench) -> Row:
    """JPEGs decoded by the GPU (nvJPEG, through torchvision) against all cores, 128x128 px. See design/loading.md."""
    images = CASES[0].drawn(512).images
    assert isinstance(images, DecodedImages)
    jpegs = [simplejpeg.encode_jpeg(image, 90) for image in images.stored]
    raw = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
    out = np.empty_like(images.stored)

    def here() -> None:
        for jpeg, place in zip(jpegs, out, strict=True):
            decode_into(jpeg, images.image, place)

    title = f"JPEGs decoded by the GPU, times the speed of {usable_cores()} cores that never wait for one another"
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        there = bench.seconds(lambda: decode_jpeg(raw, ImageReadMode.RGB, device=bench.device))
    except (ImportError, RuntimeError, AttributeError) as error:
        return title, "", "", " ".join(str(error).split())[:80]
    return title, "", "", f"{bench.seconds(here) / usable_cores() / there:.2f}x"


def reference_row(bench: Bench) -> Row:
    """The reference project's whole training, validation included: 8,000 images, 50 epochs; 4 h 10 min on its CPU."""
    case, epochs = CASES[0], REFERENCE_EPOCHS
    recipe = replace(recipe_for(case.name, REFERENCE_IMAGES), epochs=epochs if bench.device.type == "cuda" else 1)
    labelled = case.drawn(min(bench.images, REFERENCE_IMAGES))
    network, bins = case.network(labelled, bench.device)
    samples = (labelled, case.drawn(1000))
    pixels, few = (Pixels(resident(some, bench.device), bench.device, network.context) for some in samples)
    problem, clock = Problem(pixels, few, bins, recipe, 0, bench.device, World()), StepClock()
    state = problem.begin(network)
    started = time.perf_counter()
    train(problem, state, clock=clock)
    bench.wait()
    seconds = time.perf_counter() - started
    title = f"{case}: {recipe.epochs} epochs of {len(labelled)} images (limit 30 s, goal 10 s)"
    return title, "", "", f"{seconds:.1f} s, validation included; {sum(clock.total.values()):.1f} s of steps"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--compiled", action="store_true", help="measure torch.compile, too")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is visible here")
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    bench = Bench(device, options.images, options.rounds)
    limits = Limits.of(bench)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    print(f"{time.strftime('%Y-%m-%d')}, {name}, torch {torch.__version__}")
    print(
        f"{limits.flops / 1e12:.3g} TFLOP/s, memory {limits.memory / 1e9:.0f} GB/s, copies {limits.copy / 1e9:.1f} GB/s"
    )
    figures: list[Callable[[], list[Row]]] = []
    for case in CASES:
        figures += [
            partial(training_rows, case, bench, limits),
            lambda case=case: [inference_row(case, bench, limits), copy_row(case, bench, limits)],  # type: ignore[misc]
        ]
    figures += [
        partial(infer_rows, case.name, case.side_px, bench.images, bench.device.type, bench.rounds) for case in CASES
    ]
    figures += [lambda: [reference_row(bench)], lambda: [decode_row(bench)]]
    figures += [partial(step_rows, case, bench, options.compiled) for case in CASES]
    figures += [partial(step_rows, Case(name, 3, 128, "uint8"), bench, False) for name in backbones()]
    rows = []
    for figure in figures:
        found = figure()
        rows += found
        print(*found, sep="\n", file=sys.stderr, flush=True)  # a card may be lent for minutes only
    print("Images a second, unless it says otherwise:\n")
    print_table(rows, ("figure", "by FLOPs", "by bytes", "found"))


if __name__ == "__main__":
    main()
