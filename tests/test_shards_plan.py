"""Which galaxy goes to which shard, and under which key."""

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photoz.data.layout import split_of
from photoz.errors import BadInput
from photoz.shards.plan import MAX_KEY, member_keys, plan_shards, shared_keys
from tests.shards_support import galaxies_table

SPLITS = st.lists(st.sampled_from(["train", "val", "test", None]), min_size=1, max_size=120)


def table(splits: list[str | None]) -> pa.Table:
    ids = [f"sdss-dr17/{i}" for i in range(len(splits))]
    return pa.table({"object_id": pa.array(ids), "split": pa.array(splits, pa.string())})


def keys_of(object_ids: list[str]) -> list[str]:
    return member_keys(object_ids, shared_keys([pa.table({"object_id": pa.array(object_ids, pa.string())})]))


@given(SPLITS, st.integers(1, 50))
def test_every_galaxy_is_in_one_shard_of_its_own_split_and_no_shard_is_tiny(
    splits: list[str | None], most: int
) -> None:
    plan = plan_shards(lambda: [table(splits)], most)
    rows = np.concatenate([shard.rows for shard in plan])
    assert sorted(rows) == list(range(len(splits)))
    for shard in plan:
        assert {splits[row] or "all" for row in shard.rows} == {split_of(shard.name)}
    for split in {split_of(shard.name) for shard in plan}:
        sizes = [len(shard.rows) for shard in plan if split_of(shard.name) == split]
        assert max(sizes) <= most and max(sizes) - min(sizes) <= 1
        assert len(sizes) == -(-sum(sizes) // most)


@given(SPLITS, st.randoms())
def test_the_order_of_the_catalogue_does_not_matter(splits: list[str | None], random: object) -> None:
    galaxies = table(splits)
    mixed = list(range(len(splits)))
    random.shuffle(mixed)  # type: ignore[attr-defined]

    def ids(rows: pa.Table) -> list[list[str]]:
        return [rows["object_id"].take(shard.rows).to_pylist() for shard in plan_shards(lambda: [rows], 10)]

    assert ids(galaxies) == ids(galaxies.take(mixed))


def test_a_shard_is_a_random_sample_of_a_catalogue_in_order_of_redshift() -> None:
    galaxies = galaxies_table(5000).sort_by("z_spec")
    means = [
        np.mean(galaxies["z_spec"].take(shard.rows).to_numpy())
        for shard in plan_shards(lambda: [galaxies], 500)
        if split_of(shard.name) == "train"
    ]
    assert len(means) == 6
    assert np.ptp(means) < 5 * 0.084 / np.sqrt(500)


def test_an_id_that_comes_twice_is_refused() -> None:
    galaxies = galaxies_table(3, object_id=pa.array(["a", "b", "a"]))
    with pytest.raises(BadInput, match="'a' comes twice"):
        plan_shards(lambda: [galaxies], 10)


def test_a_split_that_can_t_name_a_file_is_refused() -> None:
    galaxies = galaxies_table(2, split=pa.array(["train", "../up"]))
    with pytest.raises(BadInput, match=r"split '../up'"):
        plan_shards(lambda: [galaxies], 10)


def test_keys_keep_what_a_file_name_can_hold() -> None:
    assert keys_of(["sdss-dr17/1237648720693755918", "NGC 4321", "a.b"]) == [
        "sdss-dr17_1237648720693755918",
        "NGC_4321",
        "a_b",
    ]


@given(st.lists(st.text(min_size=1, max_size=200), unique=True, max_size=30))
def test_keys_are_unique_file_names(object_ids: list[str]) -> None:
    keys = keys_of(object_ids)
    assert not [key for key, times in Counter(keys).items() if times > 1]
    assert all(re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_KEY}}}", key, re.ASCII) for key in keys)


def test_keys_of_ids_that_differ_only_in_odd_characters_stay_apart() -> None:
    one, two, plain = keys_of(["a b", "a/b", "c"])
    assert one != two and one.startswith("a_b-") and plain == "c"


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 50))
def test_a_tile_is_never_cut_and_shards_are_of_nearly_equal_size(galaxies: int, tiles: int, most: int) -> None:
    splits: list[str | None] = ["train"] * galaxies
    tile = [f"tile-{(7 * row) % tiles}" for row in range(galaxies)]

    def tiles_of(batch: pa.Table) -> list[str]:
        return [tile[int(name.removeprefix("sdss-dr17/"))] for name in batch["object_id"].to_pylist()]

    plan = plan_shards(lambda: [table(splits)], most, tiles_of)
    assert sorted(np.concatenate([shard.rows for shard in plan])) == list(range(galaxies))
    assert [shard.name for shard in plan] == [f"train-{number:06d}" for number in range(len(plan))]
    of_shard = [{tile[row] for row in shard.rows} for shard in plan]
    assert sum(map(len, of_shard)) == len(set(tile))  # none is in two
    assert max(len(shard.rows) for shard in plan) <= most + max(Counter(tile).values()) - 1
    # Within a shard galaxies of all its tiles are mixed, as by their ids alone.
    alone = {row: place for place, row in enumerate(plan_shards(lambda: [table(splits)], galaxies)[0].rows)}
    assert all(np.all(np.diff([alone[row] for row in shard.rows]) > 0) for shard in plan)


def test_galaxies_without_tiles_are_planned_as_tiles_of_one_galaxy() -> None:
    splits: list[str | None] = ["train", "val"] * 50
    plain = plan_shards(lambda: [table(splits)], 7)
    each_its_own = plan_shards(lambda: [table(splits)], 7, lambda batch: batch["object_id"].to_pylist())
    assert all(np.array_equal(one.rows, other.rows) for one, other in zip(plain, each_its_own, strict=True))
