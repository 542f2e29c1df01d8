"""Reading shards: tables without tars, images by shard and by split, in memory or from the cache file."""

import multiprocessing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from photoz.artifacts import Artifact, Ref, cache, load, open_store
from photoz.data import Images, ShardSet, image_set, open_shards
from photoz.data.batches import to_device
from photoz.data.layout import CONTEXT, ContextNumber, context_of
from photoz.data.memory import available_bytes
from photoz.data.workers import Workers
from photoz.errors import BadFormat, BadInput, TryAgain
from photoz.runtime import World, cache_folder
from photoz.shards import ShardSettings
from tests.shards_support import every_image, files_table, make_shards, own_path, save_catalog, write_jpegs


@pytest.fixture
def jpegs(tmp_path: Path) -> Artifact:
    catalog = save_catalog(tmp_path / "store", files_table(tmp_path, write_jpegs(tmp_path, 50)), tmp_path)
    return make_shards(catalog, ShardSettings(samples_per_shard=12))


@pytest.fixture
def arrays(tmp_path: Path) -> Artifact:
    rng = np.random.default_rng(0)
    for i in range(20):
        np.save(tmp_path / f"{i}.npy", rng.normal(size=(5, 16, 16)).astype(np.float32))
    catalog = save_catalog(tmp_path / "store", files_table(tmp_path, [f"{i}.npy" for i in range(20)]), tmp_path)
    return make_shards(catalog, ShardSettings(samples_per_shard=6))


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_set, "available_bytes", lambda: 1000)


def files_by_id(shards: Artifact) -> dict[str, str]:
    catalog = shards.input("catalog").table("catalog.parquet")
    return dict(zip(catalog["object_id"].to_pylist(), catalog["image"].to_pylist(), strict=True))


def test_splits_and_shards_are_listed(jpegs: Artifact) -> None:
    shards = open_shards(jpegs)
    assert shards.splits == ("test", "train", "val")
    assert shards.shard_names("train") == ["train-000000", "train-000001", "train-000002"]
    assert len(shards.shard_names("all")) == 5
    assert shards.image.shape == (3, 64, 64)


def test_a_split_that_is_not_there_is_bad_input(jpegs: Artifact) -> None:
    with pytest.raises(BadInput, match=r"no split 'dev'; it has test, train, val"):
        open_shards(jpegs).shard_names("dev")


def test_another_kind_of_artifact_is_bad_input(jpegs: Artifact) -> None:
    with pytest.raises(BadInput, match="expected an artifact of kind shards"):
        open_shards(jpegs.input("catalog"))


def test_tables_are_read_without_the_tars(jpegs: Artifact) -> None:
    for name in jpegs.names("*.tar"):
        own_path(jpegs, name).unlink()
    shards = open_shards(jpegs)
    table = shards.table("train")
    assert table.num_rows == 30
    assert {"object_id", "ra", "dec", "z_spec", "mag_r"} <= set(table.column_names)
    assert not {"offset", "length", "key"} & set(table.column_names)
    assert shards.table("all", ["z_spec"]).shape == (50, 1)


def test_a_loaded_split_has_the_columns_that_are_computed_with_and_no_others(tmp_path: Path) -> None:
    further = {name: pa.array(np.ones(20)) for name in ("mag_k", "ebv")}
    rows = files_table(tmp_path, write_jpegs(tmp_path, 20), **further)
    for has in ({"object_id", "ra", "dec", "z_spec", "ebv"}, {"object_id", "ra", "dec"}):
        galaxies = rows.drop_columns(sorted({"z_spec", "ebv"} - has))
        shards = open_shards(make_shards(save_catalog(tmp_path / str(len(has)), galaxies, tmp_path), ShardSettings()))
        assert "mag_k" in shards.table().column_names
        assert set(shards.load("all", "memory").table.column_names) == has
        assert np.isfinite(context_of(shards.load("all", "memory").table, ["ebv"])).all() == ("ebv" in has)


def test_images_of_a_shard_are_those_of_the_files_in_the_order_of_its_table(jpegs: Artifact) -> None:
    files = files_by_id(jpegs)
    folder = Path(jpegs.input("catalog").summary["table_folder"])
    shards = open_shards(jpegs)
    for name in shards.shard_names("all"):
        batch = shards.read_shard(name)
        assert batch.name == name and batch.images_bchw.dtype == np.uint8
        for object_id, image in zip(batch.table["object_id"].to_pylist(), batch.images_bchw, strict=True):
            with Image.open(folder / files[object_id]) as picture:
                assert np.array_equal(image, np.asarray(picture).transpose(2, 0, 1))


def test_arrays_come_back_exactly(arrays: Artifact) -> None:
    files = files_by_id(arrays)
    folder = Path(arrays.input("catalog").summary["table_folder"])
    images = open_shards(arrays).load("train")
    for object_id, image in zip(images.table["object_id"].to_pylist(), every_image(images), strict=True):
        assert np.array_equal(image, np.load(folder / files[object_id]))


def same(one: Images, other: Images) -> bool:
    return one.table.equals(other.table) and np.array_equal(every_image(one), every_image(other))


def test_a_split_is_the_same_in_memory_and_in_the_cache_file(jpegs: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = open_shards(jpegs)
    held = shards.load("train")
    assert not (cache_folder() / "decoded").exists()
    monkeypatch.setattr(image_set, "available_bytes", lambda: 1000)
    mapped = shards.load("train")
    assert isinstance(mapped, image_set.DecodedImages) and isinstance(mapped.stored, np.memmap)
    assert same(held, mapped)
    with pytest.raises(ValueError, match="read-only"):
        mapped.stored[0] = 0


def test_ranks_of_one_machine_share_the_cache_file(jpegs: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_set, "world", lambda: World(0, 0, 2))
    open_shards(jpegs).load("val")
    assert len(list((cache_folder() / "decoded").glob("*-val.raw"))) == 1


@pytest.mark.usefixtures("no_memory")
def test_the_cache_file_is_decoded_once_and_again_if_it_is_damaged(
    jpegs: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = open_shards(jpegs)
    decoded: list[str] = []
    read_images = ShardSet.read_images

    def counted(self: ShardSet, shard: str, out: np.ndarray, workers: Workers | None = None) -> None:
        decoded.append(shard)
        read_images(self, shard, out, workers)

    monkeypatch.setattr(ShardSet, "read_images", counted)
    first = shards.load("train")
    before = every_image(first)
    shards.load("train")
    assert len(decoded) == 3
    (raw,) = (cache_folder() / "decoded").glob("*-train.raw")
    data = bytearray(raw.read_bytes())
    data[1000] ^= 1
    raw.write_bytes(data)
    cache._checked.clear()  # as another process finds it
    assert np.array_equal(every_image(shards.load("train")), before)
    assert len(decoded) == 6


@pytest.mark.usefixtures("no_memory")
def test_a_cache_disk_that_is_too_small_is_said_before_anything_is_decoded(
    jpegs: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr("photoz.artifacts.cache.shutil.disk_usage", lambda path: Usage)
    with pytest.raises(TryAgain, match="PHOTOZ_CACHE"):
        open_shards(jpegs).load("train", "disk")


def load_split(store: str, results: "multiprocessing.Queue[int]") -> None:
    image_set.available_bytes = lambda: 1000  # type: ignore[assignment]
    images = open_shards(load(open_store(store), Ref("shards", "made"))).load("train")
    results.put(int(every_image(images).astype(np.int64).sum()))


@pytest.mark.real
def test_two_processes_at_once_get_the_same_whole_cache_file(jpegs: Artifact) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    jobs = [context.Process(target=load_split, args=(jpegs.store.url, results)) for _ in range(3)]
    for job in jobs:
        job.start()
    sums = [results.get(timeout=60) for _ in jobs]
    for job in jobs:
        job.join()
    expected = int(every_image(open_shards(jpegs).load("train")).astype(np.int64).sum())
    assert sums == [expected] * 3


def test_a_tar_that_does_not_match_its_digest_is_refused(jpegs: Artifact) -> None:
    path = own_path(jpegs, "val-000000.tar")
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadFormat, match=r"val-000000\.tar"):
        open_shards(jpegs).read_shard("val-000000")


@pytest.mark.parametrize("field", [{"format": "webp"}, {"dtype": "float16"}, {"channels": None}, {"colour": "red"}])
def test_images_of_a_format_that_is_not_known_are_refused(jpegs: Artifact, field: dict[str, object]) -> None:
    jpegs.summary["image"].update(field)
    if field.get("channels", 0) is None:
        del jpegs.summary["image"]["channels"]
    with pytest.raises(BadFormat, match=r"summary\.image"):
        open_shards(jpegs)


def test_an_index_that_does_not_fit_its_images_is_refused(jpegs: Artifact) -> None:
    shards = open_shards(jpegs)
    jpegs.summary["image"]["height"] = 65
    with pytest.raises(BadFormat, match=r"test-000000: .*\.jpg: image of 64x64 px, expected 64x65"):
        open_shards(jpegs).read_shard("test-000000")
    with pytest.raises(BadFormat, match="has 10 rows, not 3"):
        shards.read_images("test-000000", np.empty((3, 64, 64, 3), np.uint8))


@pytest.mark.parametrize("values", [["0.1"] * 5, [2**60] * 5])
def test_an_index_whose_columns_are_of_other_types_is_refused(values: list[object], tmp_path: Path) -> None:
    table = files_table(tmp_path, write_jpegs(tmp_path, 5), ebv=pa.array(values))
    shards = make_shards(save_catalog(tmp_path / "store", table, tmp_path), ShardSettings())
    with pytest.raises(BadFormat, match=r"train-000000\.index\.parquet: column ebv holds .*, expected decimal numbers"):
        open_shards(shards).table("train")


def test_reddening_is_nan_wherever_it_is_not_known() -> None:
    odd = pa.chunked_array([[None, 0.25], [float("nan"), float("inf"), 1e300, -0.01]])
    np.testing.assert_allclose(
        context_of(pa.table({"ebv": odd}), ["ebv"])[:, 0], [np.nan, 0.25, np.nan, np.nan, np.nan, -0.01]
    )
    for table in (pa.table({"ebv": pa.nulls(2)}), pa.table({"ra": [1.0, 2.0]})):
        np.testing.assert_array_equal(context_of(table, ["ebv"]), np.full((2, 1), np.nan, np.float32))


def test_context_numbers_come_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTEXT, "seeing", ContextNumber("psf_r", 60.0))
    table = pa.table({"ebv": [0.1, None], "psf_r": [-9999.0, 1.25]})
    np.testing.assert_allclose(context_of(table, ["seeing", "ebv"]), [[np.nan, 0.1], [1.25, np.nan]])
    assert context_of(table, []).shape == (2, 0)


def test_batches_reach_the_device_channels_last_in_their_own_type(jpegs: Artifact, arrays: Artifact) -> None:
    images = open_shards(jpegs).load("train")
    batch = to_device(images.take_bchw(np.array([5, 0, 29])), torch.device("cpu"))
    assert batch.dtype == torch.uint8 and batch.shape == (3, 3, 64, 64)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(batch[0].numpy(), every_image(images)[5])


def test_memory_still_free_is_a_sensible_number() -> None:
    assert 2**26 < available_bytes() < 2**45
