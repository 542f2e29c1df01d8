"""Whole shards decoded by processes, for several threads at once."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from photoz.artifacts import Artifact
from photoz.data import open_shards, shard_set
from photoz.data.decode import as_bchw
from photoz.data.workers import Workers
from photoz.errors import BadFormat, TryAgain
from photoz.infer import predict
from photoz.shards import ShardSettings
from tests.shards_support import (
    every_image,
    files_table,
    make_shards,
    processes_decode,
    save_catalog,
    write_jpegs,
)
from tests.training_support import QUICK, drawn_shards, infer, train

IMAGES = 60
Process = multiprocessing.process.BaseProcess
Images = Callable[[str], np.ndarray]  # of a shard


def shards_of(folder: Path, samples_per_shard: int) -> Artifact:
    catalog = save_catalog(folder / "store", files_table(folder, write_jpegs(folder, IMAGES)), folder)
    return make_shards(catalog, ShardSettings(samples_per_shard=samples_per_shard))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return shards_of(tmp_path_factory.mktemp("decoders"), 17)


@pytest.fixture(autouse=True)
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    processes_decode(monkeypatch)
    monkeypatch.setattr(shard_set, "_SLOT_IMAGES", 3)


def started(before: set[Process]) -> list[Process]:
    return list(set(multiprocessing.active_children()) - before)


@pytest.fixture
def decoding(
    shards: Artifact,
) -> Iterator[tuple[Callable[[str], np.ndarray], list[multiprocessing.process.BaseProcess]]]:
    source, before = open_shards(shards), set(multiprocessing.active_children())
    with source.workers(IMAGES) as workers:
        yield partial(source.images, workers=workers), started(before)


def test_processes_give_threads_the_images_that_this_process_decodes(shards: Artifact) -> None:
    alone = open_shards(shards)
    names = alone.shard_names("train")
    expected = [alone.images(name) for name in names]
    source, before = open_shards(shards), set(multiprocessing.active_children())
    with source.workers(IMAGES) as workers, ThreadPoolExecutor(4) as pool:
        processes = started(before)
        assert len(processes) == 2
        for _ in range(5):
            found = list(pool.map(partial(source.images, workers=workers), names))
            assert all(map(np.array_equal, found, expected))
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert np.array_equal(source.images(names[0]), expected[0])


@pytest.mark.parametrize(("name", "limit"), [("PROCESSES_FROM", IMAGES + 1), ("MOST_THREADS", 2)])
def test_few_images_or_few_cores_are_for_threads(
    name: str, limit: int, shards: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_set, name, limit)
    source, before = open_shards(shards), set(multiprocessing.active_children())
    with source.workers(IMAGES) as workers:
        assert workers is None and not started(before)


def test_a_split_that_is_kept_is_decoded_so(shards: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = every_image(open_shards(shards).load("train", "never"))
    monkeypatch.setattr(shard_set, "read_in_threads", None)  # nothing is decoded here
    assert np.array_equal(every_image(open_shards(shards).load("train", "memory")), expected)


def test_a_broken_image_is_named_and_others_are_still_decoded(shards: Artifact) -> None:
    source = open_shards(shards)
    images = source.samples("train-000000")
    out = np.empty((images, 64, 64, 3), np.uint8)
    with source.artifact.local("train-000000.tar") as path, closing(Workers(source.image, 2, 3)) as found:
        whole = source._locations("train-000000", path, images)
        assert whole.keys is not None
        broken = replace(whole, offset_s=whole.offset_s + np.where(np.arange(images) == 7, 64, 0))
        for _ in range(3):
            with pytest.raises(BadFormat, match=rf"train-000000: {whole.keys[7]}.jpg: .*; verify it"):
                found.read_into(broken, out)
            out[:] = 0
            found.read_into(whole, out)
            assert np.array_equal(as_bchw(out, source.image), source.images("train-000000"))


@pytest.mark.usefixtures("one_core")
def test_predictions_are_the_same_whoever_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = drawn_shards(tmp_path, 90, samples_per_shard=10)
    model = train(drawn, replace(QUICK, epochs=1))
    here = infer(model, drawn, name="here")
    monkeypatch.setattr(predict, "_decoding", lambda source, pieces, device: source.workers(IMAGES))  # as on a GPU
    monkeypatch.setattr(shard_set, "read_in_threads", None)
    assert infer(model, drawn, name="there").payload_sha256 == here.payload_sha256


def test_a_process_that_is_killed_is_a_failure_that_passes(
    decoding: tuple[Images, list[Process]],
) -> None:
    images, processes = decoding
    assert len(images("train-000000")) and processes[0].pid
    os.kill(processes[0].pid, signal.SIGKILL)
    processes[0].join(20)
    with pytest.raises(TryAgain, match="was killed"):
        images("train-000001")
