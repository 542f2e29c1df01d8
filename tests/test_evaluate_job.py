"""The evaluate job on a whole chain of artifacts: numbers, determinism, honesty about what it was given."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from photoz.artifacts import Artifact, Destination, Ref, Store, load, open_store
from photoz.errors import BadFormat, BadInput
from photoz.evaluate import EvaluateSettings, evaluate_predictions
from photoz.evaluate.chain import Chain
from photoz.evaluate.making import _on_stamps
from photoz.evaluate.metrics import Bootstrap
from photoz.evaluate.sample import known_rows, read_sample
from photoz.evaluate.scoring import score
from photoz.evaluate.wording import Separation, banners
from tests.evaluate_chain import chain, parquet, predicted, sdss_rows, write_artifact

QUICK = EvaluateSettings(bootstrap=20, gallery=2)
FIGURES = {"comparison", "coverage", "footprint", "learning", "n_of_z", "pit", "redshifts", "residuals", "widths"}


def report_of(predictions: Artifact, settings: EvaluateSettings = QUICK) -> Artifact:
    """Evaluate and load the report."""
    evaluate_predictions(predictions, settings, Destination(predictions.store, "t"))
    return load(predictions.store, Ref("report", "t"))


def metrics_of(report: Artifact) -> dict:
    """The parsed metrics.json."""
    return json.loads(report.read("metrics.json"))


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return sdss_rows(1200)


@pytest.fixture(scope="module")
def report(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return report_of(chain(open_store(str(tmp_path_factory.mktemp("store"))), rows))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_report_holds_page_metrics_figures_and_animation(report: Artifact) -> None:
    figures = {f"figures/{name}.png" for name in FIGURES | {"z_phot_z_spec"}}
    assert set(report.names()) == {"index.html", "metrics.json", "sample.gif"} | figures
    for name in figures:
        assert Image.open(io.BytesIO(report.read(name))).size[0] >= 1000
    gif = Image.open(io.BytesIO(report.read("sample.gif")))
    assert gif.n_frames > 30
    assert report.entry("sample.gif").bytes < 2e6


def test_the_page_names_what_the_kept_epoch_has_least_of(report: Artifact) -> None:
    assert "were kept, which has the least val_mae on the validation split" in report.read("index.html").decode()


def test_metrics_json_repeats_no_more_than_the_predictions_say(report: Artifact, rows: pd.DataFrame) -> None:
    test = rows[rows["split"] == "test"]
    found = metrics_of(report)
    assert found["galaxies"]["scored"] == len(test)
    assert found["galaxies"]["trained_on"] == (rows["split"] == "train").sum()
    table = predicted(test).to_pandas()
    dz = (table["z_phot"] - table["z_spec"]) / (1 + table["z_spec"])
    network = found["scores"]["network"]
    assert network["cnn"]["bias"]["value"] == pytest.approx(dz.mean(), rel=1e-4)
    assert network["rail"]["median_bias"]["value"] == pytest.approx(dz.median(), rel=1e-4)
    inside = table["z_spec"].between(table["z_lo68"], table["z_hi68"]).mean()
    assert network["pdf"]["coverage_68"]["value"] == pytest.approx(inside, rel=1e-4)
    assert network["cnn"]["sigma_mad"]["error"] > 0


def test_every_baseline_is_scored_on_the_same_galaxies(report: Artifact) -> None:
    scores = metrics_of(report)["scores"]
    assert set(scores["baselines"]) == {
        "trees_gri", "knn_gri", "trees_all_bands", "knn_all_bands", "trees_stamps", "survey", "training_mean",
    }  # fmt: skip
    counts = {key: one["galaxies"] for key, one in scores["baselines"].items() if key != "survey"}
    assert set(counts.values()) == {scores["network"]["galaxies"]}
    assert scores["reference"] == "trees_gri"
    mine, mark = (one["cnn"]["sigma_mad"]["value"] for one in (scores["network"], scores["baselines"]["trees_gri"]))
    assert scores["network"]["sigma_mad_over_reference"]["value"] == pytest.approx(mine / mark, rel=1e-4)
    assert scores["baselines"]["training_mean"]["general"]["r2"]["value"] < 0.02


def test_summary_names_the_numbers_that_people_ask_for_first(report: Artifact) -> None:
    assert {"sigma_mad", "bias", "outlier_fraction", "r2", "sigma_mad_over_reference"} <= set(report.summary)
    assert report.summary["sigma_mad"] == metrics_of(report)["scores"]["network"]["cnn"]["sigma_mad"]["value"]


def test_same_inputs_give_the_same_bytes_in_another_store(rows: pd.DataFrame, report: Artifact, store: Store) -> None:
    assert report_of(chain(store, rows)).payload_sha256 == report.payload_sha256


def test_a_second_run_finds_the_report_there(report: Artifact) -> None:
    again = evaluate_predictions(report.input("predictions"), QUICK, Destination(report.store, "t"))
    assert (again.status, again.artifact) == ("exists", str(report.ref))


@pytest.mark.real
def test_a_forced_run_makes_a_version_with_the_same_bytes(rows: pd.DataFrame, store: Store) -> None:
    predictions = chain(store, rows.head(300))
    first = evaluate_predictions(predictions, QUICK, Destination(store, "t"))
    forced = evaluate_predictions(predictions, QUICK, Destination(store, "t", force=True))
    assert (forced.status, forced.payload_sha256) == ("created", first.payload_sha256)


@pytest.mark.real
def test_another_version_of_the_same_predictions_gets_a_report_that_names_it(rows: pd.DataFrame, store: Store) -> None:
    predictions = chain(store, rows.head(300))
    evaluate_predictions(predictions, QUICK, Destination(store, "t"))
    table = {name: predictions.read(name) for name in predictions.names()}
    inputs = [predictions.input("model"), predictions.input("shards")]
    copy = write_artifact(store, "predictions", "copy", table, {}, predictions.settings, inputs)
    found = evaluate_predictions(copy, QUICK, Destination(store, "t"))
    assert found.status == "created"
    assert b"predictions/copy@v1" in load(store, Ref.parse(found.artifact)).read("index.html")


@pytest.mark.parametrize("n", [1, pytest.param(5, marks=pytest.mark.real), pytest.param(20, marks=pytest.mark.real)])
def test_a_handful_of_galaxies_makes_a_report_without_warnings(n: int, rows: pd.DataFrame, store: Store) -> None:
    few = pd.concat([rows[rows["split"] == "test"].head(n), rows[rows["split"] == "train"].head(3)])
    found = metrics_of(report_of(chain(store, few)))["scores"]
    assert found["network"]["galaxies"] == n
    assert found["network"]["cnn"]["bias"]["value"] is not None
    if n == 1:
        assert found["network"]["cnn"]["sigma_mad"]["reason"] == "needs 2 galaxies or more, has 1"


def test_galaxies_without_redshifts_make_a_report_with_nothing_scored(rows: pd.DataFrame, store: Store) -> None:
    unknown = rows.head(200).drop(columns="z_phot_survey").assign(z_spec=np.nan, split=None)
    report = report_of(chain(store, unknown, split="all"))
    assert metrics_of(report)["scores"] is None
    page = report.read("index.html").decode()
    assert "There is nothing to score" in page
    assert "Widest PDFs" in page
    assert {f"figures/{name}.png" for name in ("widths", "n_of_z", "unfamiliar", "footprint")} <= set(report.names())


def banner_titles(predictions: Artifact) -> set[str]:
    """Titles of the banners that a report on these predictions opens with."""
    trail = Chain.of(predictions)
    sample, known = read_sample(trail), known_rows(trail)
    apart = Separation.of(sample.galaxies, known[known["split"] == "train"], trail)
    return {banner.title for banner in banners(trail, sample, apart)}


def test_a_score_on_training_galaxies_is_marked_as_no_test(rows: pd.DataFrame, store: Store) -> None:
    assert "Not a test." in banner_titles(chain(store, rows.head(300), split="train"))


def test_a_score_on_the_validation_split_is_marked_as_flattering(rows: pd.DataFrame, store: Store) -> None:
    assert "The validation split, not the test split." in banner_titles(chain(store, rows.head(300), split="val"))


def test_a_score_on_the_test_split_carries_no_warning(report: Artifact) -> None:
    page = report.read("index.html").decode()
    assert 'class="banner warning"' not in page
    assert "Simulated images." in page
    assert "no sky cell (HEALPix nside 8) holds both tested and training galaxies" in page


def test_neighbours_of_training_galaxies_are_pointed_out(rows: pd.DataFrame, store: Store) -> None:
    mixed = rows.head(400).assign(split=np.where(np.arange(400) % 3 == 0, "test", "train"))
    assert "Neighbours on both sides." in banner_titles(chain(store, mixed))


def test_blocks_of_the_users_own_stand_in_for_sky_cells(rows: pd.DataFrame, store: Store) -> None:
    mixed = rows.head(400).assign(split=np.where(np.arange(400) % 3 == 0, "test", "train"))
    assert "Neighbours on both sides." not in banner_titles(chain(store, mixed.assign(block=mixed["split"] + " field")))


@pytest.mark.real
def test_images_only_are_compared_with_trees_on_stamp_colours(rows: pd.DataFrame, store: Store) -> None:
    bare = rows.head(300)[["object_id", "ra", "dec", "z_spec", "healpix", "split"]]
    report = report_of(chain(store, bare))
    scores = metrics_of(report)["scores"]
    assert set(scores["baselines"]) == {"trees_stamps", "training_mean"}
    assert scores["reference"] == "trees_stamps"
    assert "no baseline on magnitudes is possible" in report.read("index.html").decode()


@pytest.mark.real
def test_trees_on_stamps_are_tested_on_some_cutouts_of_many_and_compared_on_those(
    rows: pd.DataFrame, store: Store
) -> None:
    trail = Chain.of(chain(store, rows.head(300)))
    scored, known = read_sample(trail).scored, known_rows(trail)
    (trees,), remark = _on_stamps(trail, scored, known[known["split"] == "train"], most=40)
    assert not remark and np.isfinite(trees.z_phot).sum() == 40 < len(scored)
    assert f"tested on 40 of the {len(scored)} galaxies" in trees.note
    network, row = score(scored, [trees], Bootstrap(50)).rows
    assert (network.n, row.n) == (len(scored), 40)
    same = score(scored[np.isfinite(trees.z_phot)], [], Bootstrap(50)).network.metrics["cnn"]["sigma_mad"].value
    assert network.ratio.value == pytest.approx(same / row.metrics["cnn"]["sigma_mad"].value)


def test_baselines_are_left_out_where_the_training_catalogue_is_gone(rows: pd.DataFrame, store: Store) -> None:
    predictions = chain(store, rows.head(300))
    model = predictions.input("model")
    orphan = write_artifact(store, "model", "orphan", {"history.parquet": model.read("history.parquet")}, {}, {}, [
        write_artifact(store, "shards", "gone", {"failures.parquet": parquet(rows.head(1))}, {}, {}, []),
    ])  # fmt: skip
    files = {name: predictions.read(name) for name in predictions.names()}
    inputs = [orphan, predictions.input("shards")]
    other = write_artifact(store, "predictions", "other", files, {}, {"split": "test"}, inputs)
    store.delete("shards/gone/v1/manifest.json")
    report = report_of(other)
    assert set(metrics_of(report)["scores"]["baselines"]) == {"survey"}
    assert "No trained baselines" in report.read("index.html").decode()


def test_a_galaxy_predicted_twice_is_refused(rows: pd.DataFrame, store: Store) -> None:
    predictions = chain(store, rows.head(200))
    twice = {"test-000000.parquet": predictions.read("test-000000.parquet")}
    twice["test-000001.parquet"] = twice["test-000000.parquet"]
    inputs = [predictions.input("model"), predictions.input("shards")]
    broken = write_artifact(store, "predictions", "twice", twice, {}, {"split": "test"}, inputs)
    with pytest.raises(BadFormat, match="is in it twice"):
        report_of(broken)


def test_a_galaxy_that_the_catalogue_lacks_is_refused(rows: pd.DataFrame, store: Store) -> None:
    predictions = chain(store, rows.head(200))
    stranger = predicted(rows.head(3).assign(object_id=["a", "b", "c"]))
    files = {"test-000000.parquet": parquet(stranger)}
    inputs = [predictions.input("model"), predictions.input("shards")]
    broken = write_artifact(store, "predictions", "stranger", files, {}, {"split": "test"}, inputs)
    with pytest.raises(BadFormat, match="galaxy a is not in catalog/t@v1"):
        report_of(broken)


@pytest.mark.real
def test_point_estimates_without_pdfs_are_scored_as_points(rows: pd.DataFrame, store: Store) -> None:
    predictions = chain(store, rows.head(300))
    points = predictions.table("test-000000.parquet").select(["object_id", "ra", "dec", "z_phot", "z_spec"])
    inputs = [predictions.input("model"), predictions.input("shards")]
    plain = write_artifact(
        store, "predictions", "points", {"test-000000.parquet": parquet(points)}, {}, {"split": "test"}, inputs
    )
    report = report_of(plain)
    assert metrics_of(report)["scores"]["network"]["pdf"] == {}
    assert "figures/pit.png" not in report.names()


def test_another_kind_of_artifact_is_refused(rows: pd.DataFrame, store: Store) -> None:
    catalog = chain(store, rows.head(100)).input("shards").input("catalog")
    with pytest.raises(BadInput, match="expected an artifact of kind predictions"):
        evaluate_predictions(catalog, QUICK, Destination(store, "t"))


@pytest.mark.parametrize(("name", "value"), [("bootstrap", 3), ("gallery", -1), ("gallery", 999), ("seed", -1)])
def test_settings_out_of_range_are_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(BadInput, match=f"--{name} {value}"):
        EvaluateSettings(**{name: value})
