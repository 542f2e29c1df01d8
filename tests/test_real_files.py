"""Real images of real galaxies through the jobs, as a user's own tables. Skips where the data are not at hand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from photoz.artifacts import Artifact, Ref, Store, load, open_store

pytestmark = pytest.mark.real

PAIRS = "object_id=objid,z_spec=z,z_spec_err=zerr,image=jpeg"


def photoz_job(store: Store, *arguments: str) -> dict[str, Any]:
    """Run a job that must succeed; returns its line of JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments, "--store", store.url],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    line: dict[str, Any] = json.loads(done.stdout)
    return line


@pytest.fixture(scope="module")
def jobs_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for the file, so that a model serves several tests."""
    return open_store(str(tmp_path_factory.mktemp("real") / "store"))


def predictions_of(store: Store, name: str) -> pd.DataFrame:
    artifact = load(store, Ref("predictions", name))
    return pd.concat([artifact.table(part).to_pandas() for part in artifact.names("*.parquet")])


def check_rows(rows: pd.DataFrame, ids: set[str]) -> None:
    assert set(rows["object_id"]) == ids and len(rows) == len(ids)
    assert rows["z_phot"].between(rows["z_lo68"], rows["z_hi68"]).all()
    # Masses of the redshift bins, as float16.
    assert np.allclose(np.stack(rows["pdf"].to_list()).astype(float).sum(1), 1, atol=2e-3)


def test_legacy_survey_jpegs_go_through_catalog_shard_and_infer(
    shared_data: Path, jobs_store: Store, tmp_path: Path
) -> None:
    table = shared_data / "legacy_pairs" / "pairs.csv"
    photoz_job(jobs_store, "run", "--survey", "embedded", "--limit", "100", "--epochs", "1", "--name", "small")
    columns = ["--table", str(table), "--columns", PAIRS]
    photoz_job(jobs_store, "catalog", "--survey", "table", *columns, "--name", "pairs")
    photoz_job(jobs_store, "shard", "--name", "pairs", "--size", "64")
    line = photoz_job(
        jobs_store, "infer", "--model", "model/small", "--shards", "shards/pairs", "--split", "all", "--name", "pairs"
    )
    assert line["artifact"] == "predictions/pairs@v1"
    expected = pd.read_csv(table, dtype={"objid": str})
    rows = predictions_of(jobs_store, "pairs")
    check_rows(rows, set(expected["objid"]))
    z_by_id = dict(zip(expected["objid"], expected["z"], strict=True))
    assert np.allclose(rows["z_spec"], [z_by_id[object_id] for object_id in rows["object_id"]])
    # Another survey's pictures at another scale: the model has to say that it does not know such images.
    assert (rows["ood_score"] > 1).all()


def write_five_band_table(folder: Path, stamps: list[np.ndarray], frame: pd.DataFrame) -> Path:
    folder.mkdir()
    for name, stamp in zip(frame["image"], stamps, strict=True):
        np.save(folder / name, stamp)
    frame.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def test_five_band_stamps_go_through_catalog_shard_and_infer(
    shared_data: Path, jobs_store: Store, tmp_path: Path
) -> None:
    source = shared_data / "ugriz_stamps"
    manifest = json.loads((source / "manifest.json").read_text())
    real = [np.load(source / entry["npy"]) for entry in manifest]
    frame = pd.DataFrame(
        {
            "object_id": [entry["name"].replace(" ", "_") for entry in manifest],
            "ra": [entry["ra"] for entry in manifest],
            "dec": [entry["dec"] for entry in manifest],
            "mag_r": [entry["tabular"]["dered_r"] for entry in manifest],
            "image": [entry["npy"] for entry in manifest],
        }
    )
    photoz_job(
        jobs_store, "catalog", "--survey", "table", "--name", "ugriz",
        "--table", str(write_five_band_table(tmp_path / "real", real, frame)),
    )  # fmt: skip
    photoz_job(jobs_store, "shard", "--name", "ugriz")
    shards = load(jobs_store, Ref("shards", "ugriz"))
    assert shards.summary["image"]["channels"] == 5 and shards.summary["samples"] == 20

    # The stamps have no redshifts. A model for their shape is made from dimmed copies with made-up ones.
    rng = np.random.default_rng(1)
    dimming = rng.uniform(0.1, 1, 200)
    copies = [(real[i % 20] * f + rng.normal(0, 0.02, real[0].shape)).astype("<f4") for i, f in enumerate(dimming)]
    made_up = pd.DataFrame(
        {
            "object_id": [f"copy-{i}" for i in range(200)],
            "ra": rng.uniform(120, 240, 200),
            "dec": rng.uniform(0, 60, 200),
            "z_spec": 0.05 / dimming,
            "image": [f"copy-{i}.npy" for i in range(200)],
        }
    )
    table = write_five_band_table(tmp_path / "copies", copies, made_up)
    photoz_job(jobs_store, "catalog", "--survey", "table", "--name", "copies", "--table", str(table))
    photoz_job(jobs_store, "shard", "--name", "copies")
    photoz_job(jobs_store, "train", "--name", "copies", "--epochs", "2")
    photoz_job(jobs_store, "infer", "--model", "model/copies", "--shards", "shards/ugriz", "--name", "ugriz")
    check_rows(predictions_of(jobs_store, "ugriz"), set(frame["object_id"]))


def test_hubble_stamps_with_muse_redshifts_go_through_all_five_jobs(
    shared_data: Path, jobs_store: Store, tmp_path: Path
) -> None:
    found = np.load(shared_data / "xdf_muse" / "stamps.npz")
    frame = pd.DataFrame({name: found[name] for name in ("ra", "dec", "block")})
    frame["object_id"] = [f"muse/{number}" for number in found["muse_id"]]
    frame["z_spec"] = found["z"].astype(float)
    frame["image"] = [f"{number}.npy" for number in found["muse_id"]]
    table = write_five_band_table(tmp_path / "xdf", list(found["images"]), frame)
    line = photoz_job(
        jobs_store, "run", "--survey", "table", "--table", str(table), "--images", "files", "--name", "xdf",
        "--duplicates-arcsec", "0", "--epochs", "2",
    )  # fmt: skip
    assert line["status"] == "created"
    shards: Artifact = load(jobs_store, Ref("shards", "xdf"))
    assert (shards.summary["samples"], shards.summary["failures"]) == (384, 0)
    catalogue = load(jobs_store, Ref("catalog", "xdf")).table("catalog.parquet", ["object_id", "split"]).to_pandas()
    split_of_block = frame.merge(catalogue, on="object_id").groupby("block")["split"].nunique()
    assert (split_of_block == 1).all()
    bins = load(jobs_store, Ref("model", "xdf")).summary["redshift_bins"]
    train = frame.merge(catalogue, on="object_id").query("split == 'train'")["z_spec"]
    assert bins["low"] <= train.min() and bins["high"] >= train.max() > 4
    metrics = json.loads(load(jobs_store, Ref("report", "xdf")).read("metrics.json"))
    assert {"trees_stamps", "training_mean"} <= metrics["scores"]["baselines"].keys()
    assert metrics["simulated_images"] is False
