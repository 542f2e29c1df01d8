import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from photoz.artifacts import Artifact, Destination
from photoz.errors import BadInput
from photoz.infer import InferSettings, infer_redshifts
from photoz.runtime import TaskSlice
from photoz.tables.predictions import Flag
from tests.shards_support import galaxies_table
from tests.training_support import QUICK, drawn_galaxies, drawn_shards, infer, published, shards_of, train

COLUMNS = [
    "object_id", "ra", "dec", "z_phot", "z_mean", "z_mode", "z_lo68", "z_hi68", "z_lo95", "z_hi95", "pdf", "ood_score",
    "flags", "z_spec",
]  # fmt: skip
CPU = InferSettings(device="cpu")
pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return drawn_shards(tmp_path_factory.mktemp("infer"), samples_per_shard=30)


@pytest.fixture(scope="module")
def model(shards: Artifact) -> Artifact:
    return train(shards, replace(QUICK, epochs=4))


@pytest.fixture(scope="module")
def predictions(model: Artifact, shards: Artifact) -> Artifact:
    return infer(model, shards)


def test_predictions_have_the_contracts_columns_one_file_a_shard(predictions: Artifact) -> None:
    assert predictions.names() == ["test-000000.parquet", "test-000001.parquet"]
    for name in predictions.names():
        table = predictions.table(name)
        assert table.column_names == COLUMNS
        assert table.schema.field("pdf").type == pa.list_(pa.float16(), QUICK.bins)
        assert all(b"description" in (field.metadata or {}) for field in table.schema)


def test_every_galaxy_of_the_split_comes_once(predictions: Artifact, shards: Artifact) -> None:
    found = [one for name in predictions.names() for one in predictions.table(name)["object_id"].to_pylist()]
    expected = [
        one for name in shards.names("test-*.index.parquet") for one in shards.table(name)["object_id"].to_pylist()
    ]
    assert sorted(found) == sorted(expected)
    assert len(set(found)) == 40 == predictions.summary["galaxies"]


def test_pdfs_sum_to_1_and_the_estimates_can_be_read_off_them(predictions: Artifact) -> None:
    table = predictions.table("test-000000.parquet")
    edges = np.array(json.loads(table.schema.metadata[b"photoz"])["pdf_edges"])
    mass = np.stack(table["pdf"].to_numpy()).astype(float)
    np.testing.assert_allclose(mass.sum(axis=1), 1, atol=2e-3)
    cdf = np.cumsum(mass / mass.sum(axis=1, keepdims=True), axis=1)
    medians = [np.interp(0.5, np.r_[0, row], edges) for row in cdf]
    np.testing.assert_allclose(table["z_phot"].to_numpy(), medians, atol=1e-6)
    assert (table["z_lo95"].to_numpy() <= table["z_lo68"].to_numpy()).all()
    assert (table["z_phot"].to_numpy() <= table["z_hi68"].to_numpy()).all()


def test_neither_batches_nor_slices_change_the_payload(
    predictions: Artifact, model: Artifact, shards: Artifact
) -> None:
    small = infer(model, shards, replace(CPU, batch_size=7), name="small")
    statuses = [
        infer_redshifts(model, shards, CPU, Destination(shards.store, "sliced", TaskSlice(index, 2))).status
        for index in (1, 0)
    ]
    assert statuses == ["partial", "created"]
    sliced = infer_redshifts(model, shards, CPU, Destination(shards.store, "sliced"))
    assert sliced.status == "exists"
    assert sliced.payload_sha256 == predictions.payload_sha256
    for name in small.names():
        ours, theirs = (one.table(name)["z_phot"].to_numpy() for one in (small, predictions))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_all_splits_can_be_predicted_and_train_asked_for_by_name(model: Artifact, shards: Artifact) -> None:
    assert infer(model, shards, replace(CPU, split="all"), name="all").summary["galaxies"] == 200
    assert infer(model, shards, replace(CPU, split="train"), name="train").summary["galaxies"] == 120


def test_a_split_that_the_shards_lack_is_refused_with_those_there_are(tmp_path: Path, model: Artifact) -> None:
    new_sky = drawn_shards(tmp_path, 12, name="new", split=pa.nulls(12, pa.string()), z_spec=pa.nulls(12, pa.float64()))
    with pytest.raises(BadInput, match=r"no split 'val'; it has all"):
        infer(model, new_sky, replace(CPU, split="val"))


def test_new_sky_without_redshifts_is_predicted_whole(tmp_path: Path, model: Artifact) -> None:
    new_sky = drawn_shards(tmp_path, 12, name="new", split=pa.nulls(12, pa.string()), z_spec=pa.nulls(12, pa.float64()))
    table = infer(model, new_sky).table("all-000000.parquet")
    assert len(table) == 12
    assert table["z_spec"].null_count == 12


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 24, 24)])
def test_shards_of_other_images_are_refused_naming_both(
    tmp_path: Path, model: Artifact, shape: tuple[int, int, int]
) -> None:
    others = drawn_shards(tmp_path, 10, shape)
    with pytest.raises(BadInput, match=rf"3 channels of 24x24 px.*{shape[0]} channels of {shape[1]}x{shape[2]} px"):
        infer(model, others)


@pytest.fixture(scope="module")
def reddened(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Galaxies that look alike but for noise, and whose redshifts go with their reddening."""
    images, _ = drawn_galaxies(1, (3, 24, 24), "uint8")
    rng = np.random.default_rng(3)
    alike, ebv = images[0] + rng.integers(0, 5, (240, 3, 24, 24), np.uint8), rng.uniform(0.0, 0.3, 240)
    known = {"z_spec": pa.array(0.1 + ebv), "ebv": pa.array(ebv, pa.float32())}
    return shards_of(tmp_path_factory.mktemp("dust"), alike, "dust", **known)


def test_the_reddening_of_each_galaxy_reaches_the_network_in_training_and_in_inference(reddened: Artifact) -> None:
    model = train(reddened, replace(QUICK, epochs=60))
    made = infer(model, reddened, replace(CPU, batch_size=7))
    rows = pa.concat_tables([made.table(name) for name in made.names()]).to_pandas()
    assert np.std(rows["z_phot"] - rows["z_spec"]) < 0.6 * np.std(rows["z_spec"])
    assert made.summary["no_reddening"] == 0


def test_galaxies_of_unknown_reddening_are_predicted_flagged_and_counted(
    reddened: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    images, z = drawn_galaxies(10, (3, 24, 24), "uint8")
    ebv = pa.array([None, 0.1, float("nan"), *[0.2] * 7], pa.float32())
    folder = Path(reddened.store.url.removeprefix("file://")).parent
    shards = shards_of(folder, images, "holes", z_spec=pa.array(z), ebv=ebv)
    model = train(reddened)
    with caplog.at_level("WARNING"):
        made = infer(model, shards, replace(CPU, split="all"))
    rows = pa.concat_tables([made.table(name) for name in made.names()]).to_pandas()
    index = pa.concat_tables([shards.table(name) for name in shards.names("*.index.parquet")]).to_pandas()
    flagged = dict(zip(rows["object_id"], rows["flags"] & int(Flag.NO_REDDENING) > 0, strict=True))
    assert [flagged[one] for one in index["object_id"]] == index["ebv"].isna().tolist()
    assert np.isfinite(rows["z_phot"]).all() and made.summary["no_reddening"] == 2
    assert "2 of 10 galaxies have no E(B-V)" in caplog.text


def test_a_model_whose_training_galaxies_had_no_reddening_asks_for_none(predictions: Artifact) -> None:
    assert predictions.summary["no_reddening"] == 0


def test_images_unlike_those_in_training_score_high_and_are_flagged(tmp_path: Path, model: Artifact) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (10, 3, 24, 24), dtype=np.uint8)
    noise[0] = 200
    split = pa.nulls(10, pa.string())
    wild = infer(model, shards_of(tmp_path, noise, "wild", split=split)).table("all-000000.parquet")
    usual = infer(model, drawn_shards(tmp_path, 10, split=split))
    scores = np.concatenate([usual.table(name)["ood_score"].to_numpy() for name in usual.names()])
    assert np.median(scores) < 1.2
    assert wild["ood_score"].to_numpy().min() > 3
    flags = wild["flags"].to_numpy()
    assert (flags & Flag.UNFAMILIAR > 0).all()
    first = np.array([one == galaxies_table(1)["object_id"][0].as_py() for one in wild["object_id"].to_pylist()])
    np.testing.assert_array_equal(flags & Flag.BLANK > 0, first)


def test_a_regression_networks_predictions_have_pdfs_too(shards: Artifact) -> None:
    model = train(shards, replace(QUICK, model="menko2024", epochs=1), name="menko")
    table = infer(model, shards, name="menko").table("test-000000.parquet")
    mass = np.stack(table["pdf"].to_numpy()).astype(float)
    np.testing.assert_allclose(mass.sum(axis=1), 1, atol=2e-3)


def test_inferring_again_finds_the_predictions_that_exist(
    predictions: Artifact, model: Artifact, shards: Artifact
) -> None:
    assert infer_redshifts(model, shards, CPU, Destination(shards.store, "drawn")).status == "exists"


def test_a_job_does_without_torchs_compiler_which_takes_a_second_to_import(model: Artifact, shards: Artifact) -> None:
    # Computing on the meta device, as for the sizes that a model's file asks for, would import it.
    command = ["infer", "--store", shards.store.url, "--model", str(model.ref), "--shards", str(shards.ref)]
    main = f"from jobs.app import app; app({[*command, '--name', 'quick', '--device', 'cpu']}, standalone_mode=False)"
    code = f"import sys; {main}; sys.exit('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and '"created"' in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("settings", "words"), [({"split": "dev"}, "--split dev"), ({"batch_size": 0}, "--batch-size 0")]
)
def test_settings_that_can_not_work_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        InferSettings(**settings)  # type: ignore[arg-type]


def test_with_test_time_augmentation_a_turned_image_gets_the_same_pdf(tmp_path: Path, model: Artifact) -> None:
    images, z = drawn_galaxies(20, (3, 24, 24), "uint8", seed=5)
    lopsided = images.copy()
    lopsided[:, :, :8] //= 2
    splits = pa.array(["test"] * 20)
    found = {}
    for name, pixels in {"as-is": lopsided, "turned": np.rot90(lopsided, 1, (2, 3))}.items():
        shards = shards_of(tmp_path, np.ascontiguousarray(pixels), name, z_spec=pa.array(z), split=splits)
        for tta in (False, True):
            settings = InferSettings(device="cpu", split="all", tta=tta)
            table = infer(model, shards, settings, f"{name}-{'tta' if tta else 'plain'}").table("test-000000.parquet")
            found[name, tta] = table.to_pandas().set_index("object_id")["z_mean"].to_numpy()
    apart = {tta: np.abs(found["as-is", tta] - found["turned", tta]).max() for tta in (False, True)}
    assert apart[False] > 0 and apart[True] < 0.1 * apart[False]


def test_a_shard_whose_galaxies_have_no_images_gives_no_rows(tmp_path: Path, model: Artifact) -> None:
    images, z = drawn_galaxies(12, (3, 24, 24), "uint8")
    images[6:] = 0  # refused as blank
    splits = pa.array(["train"] * 6 + ["test"] * 6)
    shards = shards_of(tmp_path, images, "lost", z_spec=pa.array(z), split=splits)
    assert shards.summary["splits"] == {"train": 6, "test": 0}
    predictions = infer_redshifts(model, shards, replace(CPU, split="all"), Destination(shards.store, "lost"))
    made = published(shards, predictions)
    assert {name: len(made.table(name)) for name in made.names()} == {
        "test-000000.parquet": 0,
        "train-000000.parquet": 6,
    }
