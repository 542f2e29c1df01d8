import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import Latitude, Longitude, SkyCoord
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from mocpy import MOC
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from photoz.artifacts import Artifact, Destination, Outcome, Ref, Store, load
from photoz.catalog import CatalogSettings, build_catalog
from photoz.catalog import pages as catalog_pages
from photoz.catalog.cleaning import drop_duplicates
from photoz.catalog.moc import MOST_COVER_BOXES
from photoz.errors import BadInput, ExitCode
from photoz.regions import Box
from photoz.runtime import TaskSlice
from photoz.sky import open_embedded_sky
from photoz.surveys.sdss.queries import SdssQuery, sky_query
from photoz.surveys.sdss.selections import MGS, SELECTIONS

LONGEST_QUERY = 2000  # characters, encoded: web servers' usual limit on a query string is 2048


@pytest.fixture(scope="module")
def sky() -> Iterator[str]:
    """A small embedded sky over real HTTP."""
    with open_embedded_sky(galaxies=2000) as url:
        yield url


def build(store: Store, name: str = "c", task: TaskSlice | None = None, **settings: object) -> Outcome:
    made = CatalogSettings(**settings)  # type: ignore[arg-type]
    return build_catalog(made, Destination(store, name, task or TaskSlice()))


def catalog(store: Store, name: str = "c") -> tuple[Artifact, pa.Table]:
    artifact = load(store, Ref("catalog", name))
    return artifact, artifact.table("catalog.parquet")


def table_file(tmp_path: Path, rows: str, name: str = "mine.csv") -> str:
    path = tmp_path / name
    path.write_text(rows)
    return str(path)


def scattered(count: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    lines = [f"g{row},{ra[row]:.6f},{dec[row]:.6f},{0.01 + row / count / 3:.5f}" for row in range(count)]
    return "object_id,ra,dec,z_spec\n" + "\n".join(lines) + "\n"


# Own tables


def test_a_table_becomes_a_catalogue_with_the_contracts_columns(file_store: Store, tmp_path: Path) -> None:
    outcome = build(file_store, survey="table", table=table_file(tmp_path, scattered(500)))
    assert (outcome.artifact, outcome.status) == ("catalog/c@v1", "created")
    artifact, rows = catalog(file_store)
    assert rows.column_names == ["object_id", "ra", "dec", "z_spec", "healpix", "split"]
    assert rows.schema.field("ra").metadata == {b"unit": b"deg", b"description": b"right ascension, ICRS"}
    about = json.loads(rows.schema.metadata[b"photoz"])
    assert about["survey"] == "table" and about["simulated"] is False and about["split_nside"] == 64
    assert artifact.summary["rows"] == 500 == sum(artifact.summary["splits"].values())
    assert artifact.summary["table_folder"] == str(tmp_path)
    assert artifact.summary["attrition"][0] == {"cut": "rows of the table", "rows": 500}
    assert rows["object_id"].to_pylist() != sorted(rows["object_id"].to_pylist())


def test_the_same_table_elsewhere_is_the_same_catalogue(file_store: Store, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = build(file_store, survey="table", table=table_file(tmp_path, scattered(50)))
    again = build(file_store, survey="table", table=table_file(tmp_path / "other", scattered(50), "yours.csv"))
    assert (again.status, again.artifact) == ("exists", first.artifact)
    changed = build(file_store, survey="table", table=table_file(tmp_path, scattered(50, seed=1)))
    assert changed.status == "created" and changed.payload_sha256 != first.payload_sha256


def test_a_changed_image_makes_another_catalogue(file_store: Store, tmp_path: Path) -> None:
    table = table_file(tmp_path, "ra,dec,image\n1,2,a.jpg\n3,4,b.jpg\n5,6,gone.jpg\n")
    (tmp_path / "a.jpg").write_bytes(b"one")
    (tmp_path / "b.jpg").write_bytes(b"two")
    first = build(file_store, survey="table", table=table)
    (tmp_path / "b.jpg").write_bytes(b"three")
    second = build(file_store, survey="table", table=table)
    assert second.status == "created" and second.payload_sha256 != first.payload_sha256
    assert catalog(file_store)[1]["image_sha256"].null_count == 1


def test_new_settings_count_only_where_they_are_used(file_store: Store, tmp_path: Path) -> None:
    table = table_file(tmp_path, "ra,dec,z_spec,zconf\n1,2,0.1,3\n3,4,0.2,1\n5,6,0.3,4\n")
    build(file_store, survey="table", table=table)
    plain = catalog(file_store)[0].settings
    assert not {"where", "drop_repeated_z", "allow_high_z", "images_from", "image_names_sha256"} & set(plain)
    assert build(file_store, survey="table", table=table, allow_high_z=True).status == "exists"
    assert build(file_store, survey="table", table=table, where="zconf >= 2").status == "created"
    chosen, rows = catalog(file_store)
    assert chosen.settings["where"] == "zconf >= 2" and rows.num_rows == 2
    assert chosen.summary["attrition"][:2] == [
        {"cut": "rows of the table", "rows": 3},
        {"cut": "where zconf >= 2", "rows": 2},
    ]
    assert build(file_store, survey="table", table=table, drop_repeated_z=True).status == "created"


def test_images_elsewhere_are_found_by_the_catalogue_and_by_shard(file_store: Store, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"one")
    table = table_file(tmp_path, "ra,dec,image\n1,2,a.jpg\n")
    with pytest.raises(BadInput, match="name their folder with --images-from"):
        build(file_store, survey="table", table=table)
    build(file_store, survey="table", table=table, images_from=str(tmp_path / "images"))
    artifact, rows = catalog(file_store)
    assert artifact.summary["table_folder"] == str(tmp_path / "images")  # where shard looks
    assert rows["image_sha256"].null_count == 0
    absolute = table_file(tmp_path, f"ra,dec,image\n1,2,{tmp_path}/images/a.jpg\n", "absolute.csv")
    build(file_store, "near", survey="table", table=absolute, images_from=str(tmp_path / "images"))
    build(file_store, "far", survey="table", table=absolute, images_from=str(tmp_path))
    near, far = (catalog(file_store, name) for name in ("near", "far"))
    assert (near[1]["image"].to_pylist(), far[1]["image"].to_pylist()) == (["a.jpg"], ["images/a.jpg"])
    assert near[0].manifest.fingerprint != far[0].manifest.fingerprint


@pytest.mark.parametrize("limit", [1, 7, 499, 500, 5000])
def test_a_limit_gives_exactly_so_many_and_each_contains_the_smaller(
    limit: int, file_store: Store, tmp_path: Path
) -> None:
    table = table_file(tmp_path, scattered(500))
    build(file_store, "all", survey="table", table=table)
    build(file_store, "some", survey="table", table=table, limit=limit)
    every, some = (catalog(file_store, name)[1]["object_id"].to_pylist() for name in ("all", "some"))
    assert some == every[: min(limit, 500)]


def test_ids_made_from_positions_are_unique_and_say_where(file_store: Store, tmp_path: Path) -> None:
    rows = "ra,dec,z_spec,z_spec_err\n182.4166,24.7814,0.1,0.01\n5,-0.5,0.2,0.1\n5,-0.5,0.3,0.001\n5,-0.5,0.4,\n"
    build(file_store, survey="table", table=table_file(tmp_path, rows))
    artifact, found = catalog(file_store)
    by_id = dict(zip(found["object_id"].to_pylist(), found["z_spec"].to_pylist(), strict=True))
    assert by_id == {"J182.416600+24.781400": 0.1, "J005.000000-00.500000": 0.3}
    assert {"cut": "one row for each position", "rows": 2} in artifact.summary["attrition"]


def test_tables_of_one_two_or_three_galaxies_are_catalogues(file_store: Store, tmp_path: Path) -> None:
    for count in (1, 2, 3):
        build(file_store, f"n{count}", survey="table", table=table_file(tmp_path, scattered(count)))
        artifact, _ = catalog(file_store, f"n{count}")
        assert sum(artifact.summary["splits"].values()) == count
    assert artifact.summary["splits"] == {"train": 1, "val": 1, "test": 1}


def test_a_table_without_redshifts_is_for_inference_only(file_store: Store, tmp_path: Path) -> None:
    build(file_store, survey="table", table=table_file(tmp_path, "ra,dec,mag_r\n1,2,17\n3,4,-9999\n"))
    artifact, rows = catalog(file_store)
    assert rows["split"].null_count == rows["z_spec"].null_count == 2
    assert rows["mag_r"].null_count == 1
    assert artifact.summary["z_range"] is None and artifact.summary["split_by"] == "none"


def test_a_region_restricts_a_table_too(file_store: Store, tmp_path: Path) -> None:
    table = table_file(tmp_path, "ra,dec,z_spec\n359.9,0,0.1\n0.1,0.1,0.2\n180,0,0.3\n")
    build(file_store, survey="table", table=table, region="cone 0 0 1")
    assert sorted(catalog(file_store)[1]["z_spec"].to_pylist()) == [0.1, 0.2]
    with pytest.raises(BadInput, match=r"no galaxy is left by 'inside the region' \(3 rows were left"):
        build(file_store, survey="table", table=table, region="cone 90 80 1")


def test_spectra_of_one_galaxy_are_collapsed_and_neighbours_are_not(file_store: Store, tmp_path: Path) -> None:
    rows = (
        "object_id,ra,dec,z_spec,z_spec_err\n"
        "worse,10,20,0.1000,0.002\n"
        "better,10.0003,20,0.1001,0.001\n"  # 1.0 arcsec away, the same redshift
        "behind,10,20.0003,0.3000,0.001\n"  # 1.1 arcsec away, another redshift
        "beside,10.01,20,0.1000,0.001\n"  # 34 arcsec away
    )
    build(file_store, survey="table", table=table_file(tmp_path, rows))
    artifact, found = catalog(file_store)
    assert sorted(found["object_id"].to_pylist()) == ["behind", "beside", "better"]
    assert {"cut": "one spectrum within 2 arcsec", "rows": 3} in artifact.summary["attrition"]
    build(file_store, "every", survey="table", table=table_file(tmp_path, rows), duplicates_arcsec=0.0)
    assert catalog(file_store, "every")[1].num_rows == 4


@pytest.mark.parametrize(("count", "redshifts", "left"), [(20_000, 1, 1), (20_000, 40, 40), (4_000, 4_000, 1)])
def test_thousands_of_rows_at_one_position_take_little_memory(count: int, redshifts: int, left: int) -> None:
    z_spec = np.linspace(0.0, 0.4 if redshifts > 100 else 0.4 * redshifts, redshifts)[np.arange(count) % redshifts]
    rows = pa.table(
        {
            "object_id": [f"g{row}" for row in range(count)],
            "ra": np.zeros(count),
            "dec": np.zeros(count),
            "z_spec": z_spec,
        }
    )
    tracemalloc.start()
    kept = drop_duplicates(rows, 2.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept.num_rows == left
    assert peak < 300e6  # all pairs of 20,000 rows are 3.2 GB


def collapsed_pair_by_pair(rows: list[dict]) -> list[str]:
    """The ids that are left, by comparing each row with each."""
    links = coo_array((len(rows), len(rows)), dtype=bool).tolil()
    for i, one in enumerate(rows):
        for j, other in enumerate(rows[:i]):
            near = SkyCoord(one["ra"], one["dec"], unit="deg").separation(
                SkyCoord(other["ra"], other["dec"], unit="deg")
            )
            agree = abs(one["z_spec"] - other["z_spec"]) <= 0.005 * (1 + other["z_spec"])
            links[i, j] = near.arcsec <= 2.0 and agree and (one["split"] is None or one["split"] != other["split"])
    galaxy = connected_components(links, directed=False)[1]
    best = {}
    for number, row in zip(galaxy, rows, strict=True):
        best[number] = min(best.get(number, row["object_id"]), row["object_id"])
    return sorted(best.values())


@hypothesis(max_examples=25, deadline=None)
@given(st.data())
def test_collapsing_equals_a_comparison_of_every_pair(data: st.DataObject) -> None:
    splits = data.draw(st.sampled_from([[None], ["train", "val", "test"]]))
    rows = [
        {
            "object_id": f"g{number:02d}",
            "ra": data.draw(st.sampled_from([0.0, 359.9998, 0.0004])),
            "dec": data.draw(st.sampled_from([0.0, 0.0003])),
            "z_spec": data.draw(st.sampled_from([0.1, 0.1004, 0.104, 0.108, 0.3])),
            "split": data.draw(st.sampled_from(splits)),
        }
        for number in range(data.draw(st.integers(1, 12)))
    ]
    table = pa.Table.from_pylist(rows)
    kept = drop_duplicates(table if splits[0] else table.drop_columns("split"), 2.0)
    assert sorted(kept["object_id"].to_pylist()) == collapsed_pair_by_pair(rows)


@hypothesis(max_examples=100, deadline=None)
@given(st.data())
def test_after_collapsing_no_pair_is_left_and_order_does_not_matter(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 25))
    steps = data.draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    errors = data.draw(st.lists(st.sampled_from([0.1, 0.2, None]), min_size=count, max_size=count))
    rows = pa.table(
        {
            "object_id": [f"g{row:02d}" for row in range(count)],
            "ra": [step * 1.5 / 3600 for step in steps],
            "dec": [0.0] * count,
            "z_spec": [0.1] * count,
            "z_spec_err": pa.array(errors, pa.float64()),
        }
    )
    kept = drop_duplicates(rows, 2.0)
    order = data.draw(st.permutations(range(count)))
    again = drop_duplicates(rows.take(pa.array(order)), 2.0)
    assert sorted(kept["object_id"].to_pylist()) == sorted(again["object_id"].to_pylist())
    groups = 1 + sum(b - a > 1 for a, b in zip(sorted(set(steps)), sorted(set(steps))[1:], strict=False))
    assert kept.num_rows == groups


def test_neighbours_that_the_users_blocks_keep_together_stay(file_store: Store, tmp_path: Path) -> None:
    rows = "object_id,ra,dec,z_spec,block\n" + "".join(f"g{n},{10 + n * 3e-4},20,0.1,{n // 2}\n" for n in range(12))
    build(file_store, survey="table", table=table_file(tmp_path, rows))
    artifact, found = catalog(file_store)
    assert artifact.summary["split_by"] == "block"
    assert 6 <= found.num_rows < 12
    pairs = set(zip(found["block"].to_pylist(), found["split"].to_pylist(), strict=True))
    assert len(pairs) == len({block for block, _ in pairs})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"limit": 0}, "--limit 0: expected 1 or more"),
        ({"limit": -5}, "--limit -5"),
        ({"survey": "table"}, "expected --table FILE"),
        ({"where": "a > 1"}, "--where with --survey embedded: expected --survey table"),
        ({"images_from": "x"}, "--images-from with --survey embedded"),
        ({"drop_repeated_z": True}, "--drop-repeated-z with --survey embedded"),
        ({"table": "x.csv"}, "--table with --survey embedded: expected --survey table"),
        ({"columns": "ra=RA"}, "--columns with --survey embedded"),
        ({"survey": "table", "table": "none.csv"}, "none.csv: no such file"),
        ({"survey": "table", "table": "x.csv", "columns": "ra"}, "expected OURS=YOURS"),
        ({"survey": "table", "table": "x.csv", "survey_url": "http://x"}, "a table asks no server"),
        ({"survey": "table", "table": "x.csv", "photometric": True}, "--photometric with --survey table"),
        ({"photometric": True}, "expected --region or --moc"),
        ({"photometric": True, "region": "cone 1 2 3", "selection": "boss"}, "only mgs can be selected without"),
        ({"region": "cone 1 2 3", "moc": "x.fits"}, "--region and --moc: expected one of them"),
        ({"region": "cone 1 2"}, 'expected "cone RA DEC RADIUS"'),
        ({"moc": "none.fits"}, "none.fits: no such file"),
        ({"splits": "0.5,0.5"}, "expected three shares"),
        ({"duplicates_arcsec": -1.0}, "--duplicates-arcsec -1"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    wrong: dict[str, object], said: str, file_store: Store, tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as refused:
        build(file_store, **wrong)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert refused.value.exit_code == ExitCode.BAD_INPUT
    assert list(file_store.list("catalog/")) == []


# Real tables


def test_real_pairs_of_jpeg_and_redshift_are_a_catalogue(file_store: Store, shared_data: Path) -> None:
    table = str(shared_data / "legacy_pairs" / "pairs.csv")
    build(
        file_store,
        survey="table",
        table=table,
        columns="object_id=objid,image=jpeg,z_spec=z,z_spec_err=zerr",
    )
    artifact, rows = catalog(file_store)
    assert rows.num_rows == 5 and rows["image_sha256"].null_count == 0
    assert "1237650795683184714" in rows["object_id"].to_pylist()
    assert min(artifact.summary["splits"].values()) == 1


def test_real_ugriz_stamps_are_a_catalogue_for_inference(file_store: Store, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ugriz_stamps"
    lines = ["object_id,ra,dec,mag_u,mag_g,mag_r,mag_i,mag_z,image"]
    for stamp in json.loads((folder / "manifest.json").read_text()):
        magnitudes = [stamp["tabular"][f"dered_{band}"] for band in "ugriz"]
        lines.append(",".join(map(str, (stamp["name"], stamp["ra"], stamp["dec"], *magnitudes, stamp["npy"]))))
        (tmp_path / stamp["npy"]).write_bytes((folder / stamp["npy"]).read_bytes())
    build(file_store, survey="table", table=table_file(tmp_path, "\n".join(lines)))
    _, rows = catalog(file_store)
    assert rows.num_rows == 20 and rows["image_sha256"].null_count == 0 and rows["split"].null_count == 20


def test_the_deep_field_is_split_by_its_blocks_or_by_fine_cells(
    file_store: Store, shared_data: Path, tmp_path: Path
) -> None:
    stamps = np.load(shared_data / "xdf_muse" / "stamps.npz")
    columns = ("muse_id", "ra", "dec", "z", "mag_f775w", "block")
    lines = [",".join(map(str, row)) for row in zip(*(stamps[name].tolist() for name in columns), strict=True)]
    table = table_file(tmp_path, "muse_id,RA,DEC,z,mag_f775w,block\n" + "\n".join(lines))
    mapping = "object_id=muse_id,ra=RA,dec=DEC,z_spec=z"
    build(file_store, survey="table", table=table, columns=mapping, duplicates_arcsec=0.0)
    artifact, rows = catalog(file_store)
    assert rows.num_rows == 384 and artifact.summary["split_by"] == "block"
    assert artifact.summary["z_range"][1] > 5.5
    assert artifact.summary["splits"]["test"] == pytest.approx(77, abs=12)
    without_blocks = table_file(tmp_path, Path(table).read_text().replace("block", "tile"), "tiles.csv")
    build(file_store, "cells", survey="table", table=without_blocks, columns=mapping)
    cells, _ = catalog(file_store, "cells")
    assert cells.summary["split_by"] == "healpix" and cells.summary["split_nside"] > 64
    assert min(cells.summary["splits"].values()) >= 19


# The embedded sky, over HTTP


@pytest.mark.real
def test_the_main_galaxy_sample_is_selected_with_every_cut_recorded(sky: str, file_store: Store) -> None:
    build(file_store, survey_url=sky)
    artifact, rows = catalog(file_store)
    attrition = artifact.summary["attrition"]
    assert [step["cut"] for step in attrition[1:8]] == [cut.name for cut in MGS.spectroscopic]
    counts = [step["rows"] for step in attrition]
    assert counts == sorted(counts, reverse=True) and counts[-1] == rows.num_rows > 1500
    assert max(rows["z_spec"].to_pylist()) <= 0.4
    assert rows.schema.field("objid").type == rows.schema.field("specobjid").type == pa.uint64()
    assert rows["object_id"].to_pylist() == [f"embedded/{objid}" for objid in rows["objid"].to_pylist()]
    assert artifact.summary["simulated"] is True
    assert artifact.settings["survey"] == {"name": "embedded", "galaxies": 2000, "seed": 0, "version": 1}
    assert build(file_store, survey_url=sky).status == "exists"


@pytest.mark.real
def test_spectrum_ids_beyond_signed_64_bits_come_through(sky: str, file_store: Store) -> None:
    build(file_store, survey_url=sky, selection="boss")
    _, rows = catalog(file_store)
    plates = [number >> 50 for number in rows["specobjid"].to_pylist()]
    assert max(plates) >= 8192 and max(rows["specobjid"].to_pylist()) > 2**63


@pytest.mark.real
@pytest.mark.parametrize("selection", sorted(SELECTIONS))
def test_any_number_of_slices_gives_the_same_bytes(
    selection: str, sky: str, file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(file_store, "whole", survey_url=sky, selection=selection)
    monkeypatch.setattr(catalog_pages, "PAGE_ROWS", 300)
    paged = build(file_store, "paged", survey_url=sky, selection=selection)
    slices = [
        build(file_store, "sliced", TaskSlice(index, 3), survey_url=sky, selection=selection) for index in (2, 0, 1)
    ]
    assert [outcome.status for outcome in slices] == ["partial", "partial", "created"]
    assert whole.payload_sha256 == paged.payload_sha256 == slices[-1].payload_sha256


@pytest.mark.real
def test_a_job_that_died_goes_on_where_it_was(sky: str, file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = build(file_store, "undisturbed", survey_url=sky)
    monkeypatch.setattr(catalog_pages, "PAGE_ROWS", 300)
    fetched: list[int] = []
    fetch_page = SdssQuery.page

    def dying(query: SdssQuery, low: int, high: int) -> pa.Table:
        if len(fetched) == 3:
            raise KeyboardInterrupt
        fetched.append(low)
        return fetch_page(query, low, high)

    monkeypatch.setattr(SdssQuery, "page", dying)
    with pytest.raises(KeyboardInterrupt):
        build(file_store, survey_url=sky)
    assert list(file_store.list("catalog/c/v")) == []
    first, fetched[:] = list(fetched), [-1]
    monkeypatch.setattr(SdssQuery, "page", lambda *asked: fetched.append(asked[1]) or fetch_page(*asked))
    resumed = build(file_store, survey_url=sky)
    assert resumed.payload_sha256 == undisturbed.payload_sha256
    assert not set(first) & set(fetched)


@pytest.mark.real
def test_a_limit_is_the_galaxies_of_smallest_hash_and_exact(sky: str, file_store: Store) -> None:
    build(file_store, "all", survey_url=sky)
    _, rows = catalog(file_store, "all")
    for limit in (1, 50, 700, 10**6):
        build(file_store, f"first{limit}", survey_url=sky, limit=limit)
        _, some = catalog(file_store, f"first{limit}")
        assert some.num_rows == min(limit, rows.num_rows)
        assert set(some["object_id"].to_pylist()) <= set(rows["object_id"].to_pylist())
    fifty, seven_hundred = (set(catalog(file_store, f"first{n}")[1]["object_id"].to_pylist()) for n in (50, 700))
    assert fifty < seven_hundred
    splits = dict(zip(rows["object_id"].to_pylist(), rows["split"].to_pylist(), strict=True))
    _, some = catalog(file_store, "first700")
    assert [splits[name] for name in some["object_id"].to_pylist()] == some["split"].to_pylist()


@pytest.mark.real
def test_a_limit_is_met_even_where_the_cover_is_mostly_outside_the_region(
    sky: str, file_store: Store, tmp_path: Path
) -> None:
    patches = [
        MOC.from_cone(Longitude(ra * u.deg), Latitude(30 * u.deg), radius=8 * u.deg, max_depth=6) for ra in (130, 240)
    ]
    moc = patches[0].union(patches[1])
    path = tmp_path / "patches.fits"
    moc.save(path, format="fits")
    build(file_store, "all", survey_url=sky, moc=str(path))
    _, every = catalog(file_store, "all")
    inside = moc.contains_lonlat(Longitude(every["ra"].to_numpy() * u.deg), Latitude(every["dec"].to_numpy() * u.deg))
    assert inside.all() and every.num_rows > 20
    limit = every.num_rows - 3
    build(file_store, "some", survey_url=sky, moc=str(path), limit=limit)
    _, some = catalog(file_store, "some")
    assert some.num_rows == limit
    assert set(some["object_id"].to_pylist()) < set(every["object_id"].to_pylist())


@pytest.mark.real
def test_a_region_gives_what_the_whole_survey_has_there(sky: str, file_store: Store) -> None:
    build(file_store, "all", survey_url=sky)
    _, every = catalog(file_store, "all")
    build(file_store, "box", survey_url=sky, region="box 330 30 -10 20")
    _, box = catalog(file_store, "box")
    ra, dec = every["ra"].to_numpy(), every["dec"].to_numpy()
    expected = every.filter(pa.array(((ra >= 330) | (ra <= 30)) & (dec >= -10) & (dec <= 20)))
    assert sorted(box["object_id"].to_pylist()) == sorted(expected["object_id"].to_pylist()) != []


@pytest.mark.real
def test_new_sky_has_no_redshifts_and_no_splits(sky: str, file_store: Store) -> None:
    build(file_store, survey_url=sky, region="cone 185 30 20", photometric=True)
    artifact, rows = catalog(file_store)
    assert rows.num_rows > 20
    assert rows["z_spec"].null_count == rows["split"].null_count == rows.num_rows
    assert "specobjid" not in rows.column_names and rows["z_phot_survey"].null_count < rows.num_rows
    assert artifact.summary["splits"] == {"train": 0, "val": 0, "test": 0}


@pytest.mark.real
def test_an_empty_region_names_the_cut_that_left_nothing(sky: str, file_store: Store) -> None:
    with pytest.raises(BadInput, match="no galaxy is left by 'primary spectra around the region'"):
        build(file_store, survey_url=sky, region="cone 20 -85 0.5")
    assert list(file_store.list("catalog/c/v")) == []


@pytest.mark.real
def test_a_sky_that_fails_now_and_then_gives_the_same_catalogue(sky: str, file_store: Store) -> None:
    calm = build(file_store, "calm", survey_url=sky)
    with open_embedded_sky(galaxies=2000, faults="500:0.1,429:0.1,reset:0.1,truncate:0.1,html200:0.1") as troubled_sky:
        troubled = build(file_store, "troubled", survey_url=troubled_sky)
    assert troubled.payload_sha256 == calm.payload_sha256


@pytest.mark.parametrize("selection", sorted(SELECTIONS))
def test_queries_fit_into_a_url(selection: str) -> None:
    boxes = [Box(123.456789, 234.567891, -12.345678, 12.345678)] * MOST_COVER_BOXES
    for query in (sky_query(selection, False, boxes), sky_query("mgs", True, boxes)):
        assert len(quote_plus(query.page_sql(10**9, 2 * 10**9))) < LONGEST_QUERY
