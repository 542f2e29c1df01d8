"""The job as a whole: slices, resumption, repetition, cutouts over HTTP, and runs that are killed."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from photoz.artifacts import Artifact, Destination, Ref, load
from photoz.data import open_shards
from photoz.errors import BadInput, Preempted, TryAgain
from photoz.retry import Patience
from photoz.runtime import TaskSlice
from photoz.shards import ShardSettings, build_shards
from photoz.surveys.sdss import jpeg as cutouts
from tests.cutout_server import cutout_server, good, reply
from tests.shards_support import (
    every_image,
    files_table,
    flat_jpeg,
    galaxies_table,
    make_shards,
    save_catalog,
    webdataset_samples,
    write_jpegs,
)

SETTINGS = ShardSettings(samples_per_shard=8)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutouts, "BACKOFF", Patience(budget_s=0.0, longest_pause_s=0.02))


def files_catalog(tmp_path: Path, count: int = 60) -> Artifact:
    names = write_jpegs(tmp_path / "images", count)
    (tmp_path / "images" / "7.jpg").write_bytes(b"no picture")
    names[11] = None
    return save_catalog(tmp_path / "store", files_table(tmp_path / "images", names), tmp_path / "images")


def test_the_same_command_again_finds_its_shards_without_reading_an_image(tmp_path: Path) -> None:
    catalog = files_catalog(tmp_path)
    first = build_shards(catalog, SETTINGS, Destination(catalog.store, "made"))
    (tmp_path / "images").rename(tmp_path / "gone")
    again = build_shards(catalog, SETTINGS, Destination(catalog.store, "made"))
    assert (first.status, again.status) == ("created", "exists")
    assert (first.artifact, first.payload_sha256) == (again.artifact, again.payload_sha256)


def test_forced_or_under_another_name_the_bytes_are_the_same(tmp_path: Path) -> None:
    catalog = files_catalog(tmp_path)
    outcomes = [
        build_shards(catalog, SETTINGS, Destination(catalog.store, "made")),
        build_shards(catalog, SETTINGS, Destination(catalog.store, "made", force=True)),
        build_shards(catalog, SETTINGS, Destination(catalog.store, "other")),
    ]
    assert [outcome.status for outcome in outcomes] == ["created"] * 3
    assert len({outcome.payload_sha256 for outcome in outcomes}) == 1


@pytest.mark.parametrize("count", [2, 3, 20])
def test_any_number_of_slices_in_any_order_gives_the_bytes_of_one(tmp_path: Path, count: int) -> None:
    catalog = files_catalog(tmp_path)
    whole = make_shards(catalog, SETTINGS, "whole")
    order = np.random.default_rng(0).permutation(count)
    outcomes = [
        build_shards(catalog, SETTINGS, Destination(catalog.store, "sliced", TaskSlice(int(index), count)))
        for index in order
    ]
    assert [outcome.status for outcome in outcomes] == ["partial"] * (count - 1) + ["created"]
    assert outcomes[-1].payload_sha256 == whole.payload_sha256
    assert load(catalog.store, Ref("shards", "sliced")).summary == whole.summary


def test_other_settings_make_another_version(tmp_path: Path) -> None:
    catalog = files_catalog(tmp_path)
    assert make_shards(catalog, SETTINGS).ref.version == 1
    assert make_shards(catalog, ShardSettings(samples_per_shard=9)).ref.version == 2
    # Where the images lie does not decide the bytes.
    where = ShardSettings(samples_per_shard=9, images_from=str(tmp_path / "images"))
    assert build_shards(catalog, where, Destination(catalog.store, "made")).status == "exists"


def survey_catalog(tmp_path: Path, count: int = 40) -> Artifact:
    galaxies = galaxies_table(count, "embedded", ra=np.arange(count) + 0.5)
    return save_catalog(tmp_path / "store", galaxies)


def test_cutouts_of_a_survey_become_shards(tmp_path: Path) -> None:
    catalog = survey_catalog(tmp_path)
    with cutout_server(lambda ra, nth: good(ra) if ra > 3 else reply(flat_jpeg(64))) as server:
        shards = make_shards(catalog, ShardSettings(samples_per_shard=8, survey_url=server.url))
    assert shards.summary["samples"] == 37 and shards.summary["failures"] == 3
    assert shards.summary["image"] == {
        "format": "jpg", "channels": 3, "height": 64, "width": 64, "dtype": "uint8", "source": "jpeg",
        "bands": ["i", "r", "g"], "scale_arcsec_per_px": 0.396127,
    }  # fmt: skip
    assert (shards.summary["survey"], shards.summary["simulated"]) == ("embedded", True)
    assert set(shards.table("failures.parquet")["reason"].to_pylist()) == {"blank"}
    tar = shards.read("val-000000.tar")
    for row in shards.table("val-000000.index.parquet").to_pylist():
        assert good(row["ra"]).endswith(tar[row["offset"] : row["offset"] + row["length"]])


def test_a_troubled_survey_gives_the_same_bytes_as_a_calm_one(tmp_path: Path) -> None:
    catalog = survey_catalog(tmp_path)
    busy = reply(b"", "503 Service Unavailable")
    with cutout_server(lambda ra, nth: good(ra)) as calm:
        one = make_shards(catalog, ShardSettings(survey_url=calm.url), "calm")
    with cutout_server(lambda ra, nth: busy if (nth + int(ra)) % 3 else good(ra)) as troubled:
        other = make_shards(catalog, ShardSettings(survey_url=troubled.url), "troubled")
    assert one.payload_sha256 == other.payload_sha256


def test_what_was_done_when_the_survey_went_down_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = survey_catalog(tmp_path)
    monkeypatch.setattr(cutouts, "AHEAD", 2)
    monkeypatch.setenv("PHOTOZ_PATIENCE", "0.3s")
    down = {"after": 25}

    def answer(ra: float, nth: int) -> bytes:
        return good(ra) if sum(server.asked.values()) <= down["after"] else reply(b"", "503 Service Unavailable")

    with cutout_server(answer) as server:
        settings = ShardSettings(samples_per_shard=8, survey_url=server.url)
        with pytest.raises(TryAgain, match="finished shards are kept"):
            make_shards(catalog, settings)
        assert not list((tmp_path / "store" / "shards").glob("*/v*"))
        before, down["after"] = dict(server.asked), 10**9
        shards = make_shards(catalog, settings)
        twice = [ra for ra, times in server.asked.items() if times > before.get(ra, 0) and ra in before]
    assert shards.summary["samples"] == 40
    assert 0 < len(twice) < 25


def test_a_stop_between_shards_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = files_catalog(tmp_path)
    whole = make_shards(catalog, SETTINGS, "whole")
    calls = []

    def stop_at_the_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Preempted("stopped")

    with monkeypatch.context() as patched:
        patched.setattr("photoz.shards.job.check_stop", stop_at_the_third)
        with pytest.raises(Preempted):
            make_shards(catalog, SETTINGS)
    receipts = list((tmp_path / "store" / "shards" / "made").rglob("pieces/*.json"))
    assert len(receipts) == 2
    assert make_shards(catalog, SETTINGS).payload_sha256 == whole.payload_sha256


def test_images_of_another_sky_than_the_catalogue_s_are_refused(tmp_path: Path) -> None:
    catalog = survey_catalog(tmp_path)
    catalog.manifest.settings["survey"] = {"name": "embedded", "galaxies": 10_000, "seed": 0, "version": 1}
    with (
        cutout_server(lambda ra, nth: good(ra)) as server,
        pytest.raises(BadInput, match=r"'galaxies': 10000.*'galaxies': 100.*--survey-url"),
    ):
        make_shards(catalog, ShardSettings(survey_url=server.url))
    assert not server.asked


def test_simulated_images_of_real_positions_are_called_simulated(tmp_path: Path) -> None:
    catalog = save_catalog(tmp_path / "store", galaxies_table(5))
    with cutout_server(lambda ra, nth: good(ra)) as server:
        shards = make_shards(catalog, ShardSettings(survey="embedded", survey_url=server.url))
    assert shards.summary["simulated"] is True
    assert (shards.summary["survey"], shards.summary["images_from"]) == ("table", "embedded")


def test_tasks_share_the_survey_s_limit(tmp_path: Path) -> None:
    catalog = survey_catalog(tmp_path, 30)
    with cutout_server(lambda ra, nth: good(ra)) as server:
        settings = ShardSettings(samples_per_shard=8, survey="sdss-dr17", survey_url=server.url)
        build_shards(catalog, settings, Destination(catalog.store, "made", TaskSlice(0, 4)))
        span_s = max(server.times) - min(server.times)
        assert span_s >= (len(server.times) - 1) / (20 / 4) * 0.9


RUN = """
import json, sys
from photoz.artifacts import Artifact, Destination, Ref, load, open_store
from photoz.shards import ShardSettings, build_shards
store, name, url = sys.argv[1:]
catalog = load(open_store(store), Ref("catalog", "made"))
settings = ShardSettings(samples_per_shard=8, survey_url=url)
print(build_shards(catalog, settings, Destination(open_store(store), name)).payload_sha256)
"""


def run_job(store: Path, name: str, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, str(store), name, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.real
def test_a_run_killed_at_any_moment_and_started_again_gives_the_same_bytes(tmp_path: Path) -> None:
    survey_catalog(tmp_path, 300)

    with cutout_server(lambda ra, nth: good(ra)) as calm:
        undisturbed, _ = run_job(tmp_path / "store", "whole", calm.url).communicate(timeout=120)

    def slow(ra: float, nth: int) -> bytes:
        time.sleep(0.02)
        return good(ra)

    with cutout_server(slow) as server:
        for replies in (3, 100, 270, 300):
            job = run_job(tmp_path / "store", "killed", server.url)
            while server.asked.total() < replies and job.poll() is None:
                time.sleep(0.01)
            os.kill(job.pid, signal.SIGKILL)
            job.communicate()
            assert not list((tmp_path / "store" / "shards" / "killed").glob("v*"))
        resumed, errors = run_job(tmp_path / "store", "killed", server.url).communicate(timeout=120)
        assert server.asked.total() < 1000  # shards that were finished are not asked for again
    assert resumed == undisturbed != "", errors


@pytest.mark.real
def test_a_bucket_holds_the_same_bytes_as_a_folder_and_reads_the_same(tmp_path: Path, s3_url: str) -> None:
    names = write_jpegs(tmp_path / "images", 40)
    catalogs = [
        save_catalog(store, files_table(tmp_path / "images", names), tmp_path / "images")
        for store in (str(tmp_path / "store"), s3_url)
    ]
    folder, bucket = (make_shards(catalog, SETTINGS) for catalog in catalogs)
    assert folder.payload_sha256 == bucket.payload_sha256
    one, other = (open_shards(shards).load("train") for shards in (folder, bucket))
    assert one.table.equals(other.table) and np.array_equal(every_image(one), every_image(other))


@pytest.mark.real
def test_1500_real_jpegs_come_back_byte_for_byte_through_plain_webdataset(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    with tarfile.open(shared_data / "sdss_jpegs" / "jpegs.tar") as tar:
        tar.extractall(folder, filter="data")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpeg"))
    assert len(names) == 1500
    damaged = folder / names[70]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    catalog = save_catalog(tmp_path / "store", files_table(folder, list(names)), folder)
    shards = make_shards(catalog, ShardSettings(samples_per_shard=200))
    found = {json.loads(sample["json"])["image"]: sample["jpg"] for sample in webdataset_samples(shards)}
    assert found == {name: (folder / name).read_bytes() for name in names if name != names[70]}
    (failure,) = shards.table("failures.parquet").to_pylist()
    assert failure["reason"] == "corrupt" and "Premature end" in failure["detail"]
    images = open_shards(shards).load("train")
    assert every_image(images).shape == (shards.summary["splits"]["train"], 3, 423, 423)
