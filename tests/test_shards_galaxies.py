"""A catalogue read in pieces gives the rows that it gives as a whole."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from photoz.artifacts import Artifact
from photoz.shards import galaxies as galaxies_module
from photoz.shards.galaxies import Galaxies
from tests.shards_support import galaxies_table, save_catalog

COUNT = 1000


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.setattr(galaxies_module, "_ROWS_AT_ONCE", 77)
    monkeypatch.setattr("photoz.artifacts.parquet.BATCH_ROWS", 13)
    ragged = pa.array([None if i % 7 == 0 else "é" * (i % 5) for i in range(COUNT)])
    return save_catalog(tmp_path / "store", galaxies_table(COUNT, note=ragged))


def test_batches_are_the_whole_table_in_its_order(catalog: Artifact) -> None:
    parts = list(Galaxies.of(catalog).batches())
    assert len(parts) > 5
    assert pa.concat_tables(parts).equals(catalog.table("catalog.parquet"), check_metadata=True)


def test_groups_come_in_their_own_order_and_no_file_is_left(catalog: Artifact, tmp_path: Path) -> None:
    whole, scratch = catalog.table("catalog.parquet"), tmp_path / "scratch"
    scratch.mkdir()
    shuffled = np.random.default_rng(0).permutation(COUNT)
    groups = [shuffled[:1], shuffled[1:400], shuffled[400:650], shuffled[700:]]  # the rest is another slice's
    for rows, found in zip(groups, Galaxies.of(catalog).groups(groups, scratch), strict=True):
        assert found.equals(whole.take(pa.array(rows)), check_metadata=True)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("most", [1, 10, COUNT, 5 * COUNT])
def test_some_rows_come_from_all_over_the_file(catalog: Artifact, most: int) -> None:
    found = Galaxies.of(catalog).spread(most, ["object_id"])["object_id"].to_pylist()
    every = catalog.table("catalog.parquet")["object_id"].to_pylist()
    assert found == [every[i] for i in sorted({int(i) for i in np.linspace(0, COUNT - 1, most)})]
