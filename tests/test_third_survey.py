"""A survey that photoz does not know: two bands, a scale and a column of its own, in this one module."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from numpy.typing import NDArray

from photoz import surveys
from photoz.artifacts import Destination, Ref, Store, load
from photoz.catalog import CatalogSettings, build_catalog
from photoz.errors import BadInput
from photoz.evaluate import EvaluateSettings, evaluate_predictions
from photoz.images.picture import NoCutout
from photoz.infer import InferSettings, infer_redshifts
from photoz.regions import Box
from photoz.runtime import TaskSlice
from photoz.shards import ShardSettings, build_shards
from photoz.surveys.survey import HASH_RANGE, Band, CatalogQuery, Column, CutoutLimits, Survey
from photoz.train import TrainSettings, train_model

GALAXIES = 400


def everything() -> pa.Table:
    """All that this survey has."""
    rng = np.random.default_rng(3)
    z_spec = rng.uniform(0.02, 0.3, GALAXIES)
    return pa.table(
        {
            "plate": pa.array(np.arange(GALAXIES), pa.int32()),
            "hash": rng.integers(0, HASH_RANGE, GALAXIES),
            "ra": rng.uniform(0, 360, GALAXIES),
            "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, GALAXIES))),
            "z_spec": z_spec,
            "z_spec_err": np.full(GALAXIES, 1e-4),
            "mag_v": 15 + 10 * z_spec,
            "mag_w": 14 + 5 * z_spec,
            "ebv": np.full(GALAXIES, 0.02),
        }
    )


@dataclass(frozen=True)
class Rows:
    """See CatalogQuery."""

    boxes: Sequence[Box]
    steps: Sequence[str] = ("everything", "redshift up to 0.28")

    def _left(self, cuts: int) -> pa.Table:
        rows = everything()
        return rows.filter(pa.array(rows["z_spec"].to_numpy() <= 0.28)) if cuts else rows

    def count(self, cuts: int) -> int:
        return int(self._left(cuts).num_rows)

    def page(self, low: int, high: int) -> pa.Table:
        rows = self._left(1)
        hashes = rows["hash"].to_numpy()
        return rows.filter(pa.array((hashes >= low) & (hashes < high)))

    def to_catalog(self, rows: pa.Table) -> pa.Table:
        return rows.append_column("object_id", pa.array([f"third/{plate}" for plate in rows["plate"].to_pylist()]))

    def order(self, rows: pa.Table) -> NDArray[np.int64]:
        return np.argsort(rows["hash"].to_numpy(), kind="stable")


class Opened:
    """See OpenSurvey."""

    base_url = "nowhere"

    def query(self, selection: str, photometric: bool, boxes: Sequence[Box], sharers: int) -> CatalogQuery:
        assert (selection, photometric) == ("all", False)
        return Rows(boxes)

    def cutouts(
        self, positions_deg: Iterable[tuple[float, float]], size_px: int, scale_arcsec_per_px: float, sharers: int
    ) -> Iterator[bytes | NoCutout]:
        assert scale_arcsec_per_px == 0.7
        for ra, _ in positions_deg:
            if ra > 350:
                yield NoCutout("hidden", "behind the third survey's tree")
                continue
            picture = np.random.default_rng(int(ra * 1e6)).integers(0, 60, (size_px, size_px, 3), np.uint8)
            picture[size_px // 2 - 3 : size_px // 2 + 3, size_px // 2 - 3 : size_px // 2 + 3] = (200, 150, int(ra / 2))
            yield simplejpeg.encode_jpeg(picture)


@dataclass(frozen=True)
class Third:
    """See Survey."""

    name: str = "third"
    title: str = "a survey of this test"
    simulated: bool = True
    caveat: str = "The third survey's galaxies are made up."
    bands: ClassVar[tuple[Band, ...]] = (Band("v", 550.0, 3.1), Band("w", 900.0, 1.4))
    selections: ClassVar[dict[str, str]] = {"all": "everything"}
    photometric_selections: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[dict[str, Column]] = {"plate": Column("int32", "photographic plate")}
    cutout_limits: ClassVar[CutoutLimits] = CutoutLimits(("w", "v", "v"), range(16, 65), 32, 0.7)

    def identity(self, url: str | None) -> dict[str, Any]:
        return {"name": self.name, "version": 1}

    @contextmanager
    def open(self, url: str | None) -> Iterator[Opened]:
        yield Opened()

    def link(self, object_id: str) -> None:
        return None


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The survey is known for the length of a test."""
    monkeypatch.setattr(surveys, "_surveys", dict(surveys._surveys))
    survey: Survey = Third()
    surveys.register(survey)


def test_a_third_survey_goes_from_its_catalogue_to_a_report(file_store: Store) -> None:
    dest = Destination(file_store, "third", TaskSlice())
    build_catalog(CatalogSettings(survey="third"), dest)
    catalog = load(file_store, Ref("catalog", "third"))
    rows = catalog.table("catalog.parquet")
    assert rows.schema.field("plate").metadata == {b"description": b"photographic plate"}
    assert [name for name in rows.column_names if name.startswith("mag_")] == ["mag_v", "mag_w"]
    assert catalog.settings["survey"] == {"name": "third", "version": 1}
    assert catalog.summary["attrition"][1]["cut"] == "redshift up to 0.28"

    build_shards(catalog, ShardSettings(samples_per_shard=50), dest)
    shards = load(file_store, Ref("shards", "third"))
    image = shards.summary["image"]
    assert (image["bands"], image["width"], image["scale_arcsec_per_px"]) == (["w", "v", "v"], 32, 0.7)
    assert shards.summary["samples"] + shards.summary["failures"] == catalog.summary["rows"]
    assert set(shards.table("failures.parquet")["reason"].to_pylist()) == {"hidden"}

    train_model(shards, TrainSettings(epochs=1, device="cpu"), dest)
    infer_redshifts(load(file_store, Ref("model", "third")), shards, InferSettings(device="cpu"), dest)
    evaluate_predictions(load(file_store, Ref("predictions", "third")), EvaluateSettings(gallery=2), dest)
    report = load(file_store, Ref("report", "third"))
    assert "The third survey&#39;s galaxies are made up." in report.read("index.html").decode()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"survey": "thirt"},
            "--survey 'thirt': expected one of embedded, sdss-dr17, third, table; did you mean third?",
        ),
        ({"survey": "third", "selection": "mgs"}, "--selection 'mgs': expected one of all"),
        (
            {"survey": "third", "photometric": True, "region": "cone 1 2 3"},
            "third has no sample that can be selected without spectra",
        ),
    ],
)
def test_what_a_third_survey_does_not_have_is_named(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint.replace("?", r"\?")):
        CatalogSettings(**settings)
