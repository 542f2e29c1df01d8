"""Catalogues of image files, made for tests of shards and of reading them."""

import gc
import hashlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image

from photoz.artifacts import Artifact, Destination, Draft, Ref, load, open_store
from photoz.data import Images, shard_set
from photoz.runtime import TaskSlice
from photoz.shards import ShardSettings, build_shards


def galaxies_table(count: int, survey: str = "table", **columns: pa.Array) -> pa.Table:
    """Rows as the catalog job writes them, with made-up positions and redshifts; `columns` replace or add some."""
    rng = np.random.default_rng(1)
    known = {
        "object_id": pa.array([f"{survey}/{10**18 + 7919 * i}" for i in range(count)]),
        "ra": pa.array(rng.uniform(0, 360, count)),
        "dec": pa.array(rng.uniform(-10, 60, count)),
        "z_spec": pa.array(rng.uniform(0.01, 0.3, count)),
        "mag_r": pa.array(rng.uniform(14, 17.8, count).astype(np.float32)),
        "healpix": pa.array(rng.integers(0, 49152, count).astype(np.int32)),
        "split": pa.array([("train", "train", "train", "val", "test")[i % 5] for i in range(count)]),
        "objid": pa.array([2**64 - 1 - i for i in range(count)], pa.uint64()),
    }
    about = {"survey": survey, "simulated": survey == "embedded"}
    return pa.table(known | columns).replace_schema_metadata({"photoz": json.dumps(about)})


def save_catalog(store: Path | str, galaxies: pa.Table, folder: Path | None = None, name: str = "made") -> Artifact:
    """Publish a table as catalog/<name>."""
    sink = io.BytesIO()
    pq.write_table(galaxies, sink)
    survey = json.loads(galaxies.schema.metadata[b"photoz"])["survey"]
    summary = {"rows": galaxies.num_rows, "survey": survey, "table_folder": str(folder) if folder else None}
    dest = Destination(open_store(str(store)), name)
    with Draft.begin(dest, kind="catalog", recipe=1, settings={"rows": galaxies.num_rows}) as draft:
        draft.put("catalog.parquet", sink.getvalue(), rows=galaxies.num_rows)
        draft.commit(summary)
    return load(open_store(str(store)), Ref("catalog", name))


def files_table(folder: Path, names: list[str | None], **columns: pa.Array) -> pa.Table:
    """Rows for image files below `folder`, with the digests that the catalog job takes of them."""
    digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() if name else None for name in names]
    return galaxies_table(
        len(names), image=pa.array(names, pa.string()), image_sha256=pa.array(digests, pa.string()), **columns
    )


def make_shards(
    catalog: Artifact, settings: ShardSettings, name: str = "made", task: TaskSlice | None = None
) -> Artifact:
    """Run the shard job beside the catalogue and load what it published."""
    build_shards(catalog, settings, Destination(catalog.store, name, task or TaskSlice()))
    return load(catalog.store, Ref("shards", name))


def noise_jpeg(seed: int, size_px: int = 64, mode: str = "RGB") -> bytes:
    """A JPEG that looks like sky: noise with a bright middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size_px, :size_px] - size_px / 2
    galaxy = 200 * np.exp(-np.hypot(x, y) / 6)[..., None]
    pixels = np.clip(rng.normal(20, 6, (size_px, size_px, 3)) + galaxy, 0, 255).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(sink, "JPEG", quality=75)
    return sink.getvalue()


def processes_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole shards are decoded by two processes, as on a machine with many cores, few images, too."""
    monkeypatch.setattr(shard_set, "usual_workers", lambda: 2)
    monkeypatch.setattr(shard_set, "MOST_THREADS", 1)
    monkeypatch.setattr(shard_set, "PROCESSES_FROM", 1)


def write_jpegs(folder: Path, count: int, size_px: int = 64) -> list[str | None]:
    """Files 0.jpg, 1.jpg, … of sky."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(noise_jpeg(i, size_px))
    return [f"{i}.jpg" for i in range(count)]


def flat_jpeg(size_px: int, words: bool = False) -> bytes:
    """What a survey sends off its footprint: one tone, perhaps with a line of text."""
    pixels = np.zeros((size_px, size_px, 3), np.uint8)
    if words:
        pixels[size_px // 2, 4:-4:3] = 255
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=75)
    return sink.getvalue()


def own_path(artifact: Artifact, name: str) -> Path:
    """The file in the store's folder."""
    path = artifact.store.local_path(artifact.entry(name).path)
    assert path is not None
    return path


def webdataset_samples(shards: Artifact, pattern: str = "*.tar", decode: str | None = None) -> list[dict[str, Any]]:
    """Every sample of some shards as plain webdataset reads them, and decodes them if so asked."""
    urls = [str(own_path(shards, name)) for name in shards.names(pattern)]
    with warnings.catch_warnings():
        # It leaves the files that it opens for the garbage collector to close.
        warnings.simplefilter("ignore", ResourceWarning)
        stored = wds.WebDataset(urls, shardshuffle=False)
        samples = list(stored.decode(decode) if decode else stored)
        gc.collect()
    return samples


def every_image(images: Images) -> NDArray[np.generic]:
    """All images of a split, (b, c, h, w)."""
    return images.take_bchw(np.arange(len(images)))
