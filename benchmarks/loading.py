"""The loader beside the limits of its machine: bare decoding, a usual webdataset pipeline, a map of raw pixels.

    python -m benchmarks.loading [--images 3000] [--rounds 5]

Makes 128x128 px JPEGs (quality 90, 4:2:0, some 5 KB each), and shards of them with the shard job, in a temporary
folder.
Every figure is a ratio of times taken in one run, alternated; the median over the rounds.
"""

import argparse
import hashlib
import os
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image

from benchmarks.ratios import Cost, Row, alternated, print_table, ratio
from photoz.artifacts import Artifact, Destination
from photoz.data import EpochPlan, ImageFormat, open_shards
from photoz.data.decode import stored_shape
from photoz.data.image_set import DecodedImages, Images, StreamedImages
from photoz.data.locations import Locations, MemberReader
from photoz.runtime import usable_cores
from photoz.shards import ShardSettings, build_shards
from tests.shards_support import files_table, make_shards, own_path, save_catalog

SIDE_PX, BATCH = 128, 128


def write_pictures(folder: Path, count: int) -> list[str | None]:
    """JPEGs of a bright middle on smooth sky with noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX / 2
    for number in range(count):
        galaxy = 200 * np.exp(-np.hypot(x, y * rng.uniform(1, 3)) / rng.uniform(4, 16))
        pixels = galaxy[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(20, 7, (SIDE_PX, SIDE_PX, 3))
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        picture.save(folder / f"{number}.jpg", quality=90, subsampling="4:2:0")
    return [f"{number}.jpg" for number in range(count)]


def members(shards: Artifact) -> list[bytes]:
    """All JPEGs of the train split, in order."""
    found = []
    for name in shards.names("train-*.tar"):
        with tarfile.open(own_path(shards, name)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if member.name.endswith(".jpg") and file:
                    found.append(file.read())
    return found


def decode_all(jpegs: list[bytes], side_px: int = SIDE_PX) -> Callable[[], None]:
    """The limit: simplejpeg on bytes in memory, into one buffer."""
    buffer = np.empty((side_px, side_px, 3), np.uint8)

    def run() -> None:
        for jpeg in jpegs:
            simplejpeg.decode_jpeg(jpeg, "RGB", buffer=buffer)

    return run


def usual_pipeline(shards: Artifact) -> Callable[[], None]:
    """webdataset as its documentation shows it: pil, ToTensor, DataLoader, in this process."""
    urls = [str(own_path(shards, name)) for name in shards.names("train-*.tar")]

    def to_tensor(image: Image.Image) -> torch.Tensor:  # what torchvision's ToTensor does
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = wds.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("jpg").map_tuple(to_tensor)
            for _ in torch.utils.data.DataLoader(data, batch_size=BATCH):
                pass

    return run


def read_here(locations: Locations, image: ImageFormat, plan: EpochPlan, shuffled: bool = False) -> Callable[[], None]:
    """An epoch of this loader in this process: uint8 batches, in the shards' order, or in that of training."""
    out = np.empty((plan.samples // plan.steps + 1, *stored_shape(image)), image.dtype)

    def run() -> None:
        with MemberReader(image) as reader:
            for part in plan.batches(0) if shuffled else in_order(plan):
                reader.read_into(locations[part], out[: len(part)])

    return run


def read_all(images: Images, plan: EpochPlan) -> Callable[[], None]:
    """An epoch of this loader: uint8 batches in the shards' order."""

    def run() -> None:
        for _ in images.batches(in_order(plan)):
            pass

    return run


def in_order(plan: EpochPlan) -> list[NDArray[np.int64]]:
    """The plan's samples in the shards' order, in as many batches."""
    return np.array_split(np.arange(plan.samples), plan.steps)


def loader_figures(shards: Artifact, rounds: int) -> list[Row]:
    """Rows of the table about reading."""
    source = open_shards(shards)
    locations = source._held_locations("train")
    streamed = StreamedImages(locations, source.table("train"), source.image, source._held, 1)
    raw = source.load("train", "disk")
    assert isinstance(raw, DecodedImages)
    plan = EpochPlan(len(raw), BATCH)
    jpegs = members(shards)
    assert len(jpegs) == len(raw)
    print(f"{len(jpegs)} images of {np.mean([len(jpeg) for jpeg in jpegs]):.0f} bytes")
    found = alternated(
        {
            "decode": decode_all(jpegs),
            "ours": read_here(locations, source.image, plan),
            "shuffled": read_here(locations, source.image, plan, shuffled=True),
            "usual": usual_pipeline(shards),
            "worker": read_all(streamed, plan),
            "raw": read_all(raw, plan),
        },
        rounds,
    )
    streamed.close()

    def cpu_us(one: Cost) -> float:
        return 1e6 * one.cpu / len(jpegs)

    main_cpu = sorted(map(cpu_us, found["worker"]))[rounds // 2]
    for name, costs in found.items():
        print(f"{name}: {1e6 * sorted(one.wall for one in costs)[rounds // 2] / len(jpegs):.1f} us an image")
    shuffled = ratio(found["decode"], found["shuffled"])
    bare, usual, worker, kept = (
        ratio(found["decode"], found["ours"]), ratio(found["usual"], found["ours"]),
        ratio(found["ours"], found["worker"]), ratio(found["ours"], found["raw"]),
    )  # fmt: skip
    return [
        ("tar to uint8 batch, one process, of bare simplejpeg's speed", "0.85", "0.93", f"{bare:.2f}"),
        ("the same in shuffled order", "", "", f"{shuffled:.2f}"),
        ("the same, in order, times a usual webdataset pipeline's speed", "5x", "7x", f"{usual:.1f}x"),
        ("through one worker process, of in-process speed", "0.85", "0.92", f"{worker:.2f}"),
        ("main process CPU per image", "2 us", "0.8 us", f"{main_cpu:.1f} us"),
        ("raw cache, times the JPEG path's speed", "6x", "10x", f"{kept:.1f}x"),
    ]


def shard_figures(catalog: Artifact, folder: Path, rounds: int) -> list[Row]:
    """CPU of the shard job against what it can't do without, on one core as that is, and on all."""
    files = [folder / name for name in catalog.table("catalog.parquet")["image"].to_pylist()]
    scratch = folder / "plain"
    number = iter(range(10**6))

    def least() -> None:
        buffer = np.empty((SIDE_PX, SIDE_PX, 3), np.uint8)
        whole = hashlib.sha256()
        with scratch.open("wb") as out:
            for file in files:
                data = file.read_bytes()
                simplejpeg.decode_jpeg(data, "RGB", buffer=buffer)
                hashlib.sha256(data).digest()
                whole.update(data)
                out.write(data)

    def job() -> None:
        dest = Destination(catalog.store, f"bench-{next(number)}")
        build_shards(catalog, ShardSettings(images="files"), dest)

    def on_one_core() -> None:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(cores)})
        try:
            job()
        finally:
            os.sched_setaffinity(0, cores)

    found = alternated({"least": least, "job": job, "one core": on_one_core}, rounds)
    times, alone = (ratio(found[way], found["least"], lambda one: one.cpu) for way in ("job", "one core"))
    gain = ratio(found["one core"], found["job"])
    title = "shard job's CPU, times decode + two SHA-256 + plain write"
    return [
        (f"{title}, on one core as those are", "1.5x", "1.1x", f"{alone:.2f}x"),
        (
            f"the same on {usable_cores()} cores, where it takes 1/{gain:.2f} of the time",
            "1.5x",
            "1.1x",
            f"{times:.2f}x",
        ),
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="photoz-loading-") as temporary:
        folder = Path(temporary)
        os.environ["PHOTOZ_CACHE"] = str(folder / "cache")
        names = write_pictures(folder / "pictures", options.images)
        rows = files_table(folder / "pictures", names, split=pa.array(["train"] * len(names)))
        catalog = save_catalog(folder / "store", rows, folder / "pictures")
        shards = make_shards(catalog, ShardSettings(images="files", samples_per_shard=1000))
        print(f"{time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f}")
        print_table(
            [*loader_figures(shards, options.rounds), *shard_figures(catalog, folder / "pictures", options.rounds)]
        )


if __name__ == "__main__":
    main()
