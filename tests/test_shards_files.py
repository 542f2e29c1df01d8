"""Shards of the user's own image files: catalogue in, tars and index out, read back."""

import io
import logging
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from astropy.io import fits
from PIL import Image

from photoz.artifacts import Artifact, Ref, load
from photoz.data import open_shards
from photoz.errors import BadInput
from photoz.shards import ShardSettings
from tests.shards_support import (
    files_table,
    galaxies_table,
    make_shards,
    noise_jpeg,
    save_catalog,
    webdataset_samples,
    write_jpegs,
)
from tests.training_support import job_command

SETTINGS = ShardSettings(samples_per_shard=8)
RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def shards_of(folder: Path, names: list[str | None], settings: ShardSettings = SETTINGS) -> Artifact:
    return make_shards(save_catalog(folder.parent / "store", files_table(folder, names), folder), settings)


def save_npy(folder: Path, arrays: list[np.ndarray]) -> list[str | None]:
    for i, array in enumerate(arrays):
        np.save(folder / f"{i}.npy", array)
    return [f"{i}.npy" for i in range(len(arrays))]


def cubes(count: int, shape: tuple[int, ...] = (16, 16, 5), kind: str = "f4") -> list[np.ndarray]:
    return [(RNG.normal(size=shape) * 100).astype(kind) for _ in range(count)]


def failures(shards: Artifact) -> dict[str, str]:
    table = shards.table("failures.parquet").to_pydict()
    return dict(zip(table["object_id"], table["reason"], strict=True))


def by_id(shards: Artifact) -> dict[str, np.ndarray]:
    opened = open_shards(shards)
    batches = [opened.read_shard(name) for name in opened.shard_names()]
    return {
        object_id: image
        for batch in batches
        for object_id, image in zip(batch.table["object_id"].to_pylist(), batch.images_bchw, strict=True)
    }


def test_jpegs_pass_through_unchanged_with_the_catalogue_row_beside_them(folder: Path) -> None:
    names = write_jpegs(folder, 25)
    shards = shards_of(folder, names)
    galaxies = {row["object_id"]: row for row in shards.input("catalog").table("catalog.parquet").to_pylist()}
    seen = set()
    for tar in shards.names("*.tar"):
        for sample in webdataset_samples(shards, tar):
            row = orjson.loads(sample["json"])
            assert row == galaxies[row["object_id"]]
            assert sample["__key__"] == row["object_id"].replace("/", "_")
            assert sample["jpg"] == (folder / row["image"]).read_bytes()
            assert tar.startswith(row["split"] + "-")
            seen.add(row["object_id"])
    assert seen == set(galaxies)


def test_ids_of_64_bits_stay_exact(folder: Path) -> None:
    shards = shards_of(folder, write_jpegs(folder, 5))
    ids = open_shards(shards).table()["objid"]
    assert ids.type == pa.uint64() and max(ids.to_pylist()) == 2**64 - 1
    sample = webdataset_samples(shards)[0]
    assert orjson.loads(sample["json"])["objid"] > 2**63


def test_the_index_points_at_each_member_and_carries_the_catalogue_s_columns(folder: Path) -> None:
    shards = shards_of(folder, write_jpegs(folder, 25))
    for name in shards.names("*.index.parquet"):
        tar = shards.read(name.replace(".index.parquet", ".tar"))
        index = shards.table(name)
        assert "image" not in index.column_names and "z_spec" in index.column_names
        for row in index.to_pylist():
            about = orjson.loads(tar[row["json_offset"] : row["json_offset"] + row["json_length"]])
            assert about["object_id"] == row["object_id"]
            assert tar[row["offset"] : row["offset"] + row["length"]] == (folder / about["image"]).read_bytes()


def test_samples_and_failures_add_up_to_the_galaxies_and_each_failure_says_why(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = write_jpegs(folder, 25)
    (folder / "3.jpg").write_bytes(noise_jpeg(3)[:900])
    (folder / "4.jpg").write_bytes(b"<html>not found</html>")
    (folder / "5.jpg").write_bytes(noise_jpeg(5, 48))
    names[6] = None
    with caplog.at_level(logging.INFO):
        shards = shards_of(folder, names)
    ids = shards.input("catalog").table("catalog.parquet")["object_id"].to_pylist()
    wanted = {3: "corrupt", 4: "not_an_image", 5: "other_shape", 6: "no_file"}
    assert failures(shards) == {ids[i]: why for i, why in wanted.items()}
    assert shards.summary["galaxies"] == 25
    assert shards.summary["samples"] == 21 == sum(shards.summary["splits"].values())
    assert shards.summary["failures"] == 4
    assert set(by_id(shards)) == set(ids) - set(failures(shards))
    assert "-1 without image: corrupt" in caplog.text


def test_a_failure_moves_no_other_galaxy_to_another_shard(folder: Path) -> None:
    names = write_jpegs(folder, 25)
    whole = shards_of(folder, names)
    galaxies = files_table(folder, [*names[:3], None, *names[4:]])
    holed = make_shards(save_catalog(folder.parent / "store", galaxies, folder, "holed"), SETTINGS, "holed")

    def shard_of(shards: Artifact) -> dict[str, str]:
        opened = open_shards(shards)
        return {
            i: name for name in opened.shard_names() for i in opened.read_shard(name).table["object_id"].to_pylist()
        }

    lost = set(failures(holed))
    assert len(lost) == 1
    assert shard_of(holed) == {i: name for i, name in shard_of(whole).items() if i not in lost}


def test_arrays_of_either_order_become_channel_first(folder: Path) -> None:
    arrays = cubes(10)
    last = by_id(shards_of(folder, save_npy(folder, arrays)))
    catalog = save_catalog(
        folder.parent / "store",
        files_table(folder, save_npy(folder, [np.moveaxis(array, 2, 0) for array in arrays])),
        folder,
        "first",
    )
    first = by_id(make_shards(catalog, SETTINGS, "first"))
    assert last.keys() == first.keys() and len(last) == 10
    assert all(np.array_equal(last[i], first[i]) and last[i].shape == (5, 16, 16) for i in last)
    originals = {np.ascontiguousarray(np.moveaxis(array, 2, 0)).tobytes() for array in arrays}
    assert {np.ascontiguousarray(image).tobytes() for image in last.values()} == originals


@pytest.mark.parametrize(("kind", "kept"), [("u1", "uint8"), (">i2", "int16"), (">f4", "float32"), ("f8", "float32")])
def test_members_are_npy_that_numpy_reads(folder: Path, kind: str, kept: str) -> None:
    shards = shards_of(folder, save_npy(folder, cubes(4, kind=kind)))
    assert shards.summary["image"]["dtype"] == kept
    sample = webdataset_samples(shards)[0]
    array = np.load(io.BytesIO(sample["npy"]))
    assert array.dtype == np.dtype(kept) and array.shape == (5, 16, 16) and array.flags.c_contiguous


def test_png_and_fits_and_npy_of_one_shape_may_be_mixed(folder: Path) -> None:
    plane = RNG.integers(0, 255, (16, 16)).astype(np.uint8)
    Image.fromarray(plane).save(folder / "a.png")
    fits.PrimaryHDU(plane).writeto(folder / "b.fits")
    np.save(folder / "c.npy", plane)
    images = by_id(shards_of(folder, ["a.png", "b.fits", "c.npy"]))
    assert len(images) == 3
    assert all(np.array_equal(image, plane[None]) for image in images.values())


def test_jpegs_among_other_files_are_decoded_with_them(folder: Path) -> None:
    names = write_jpegs(folder, 3)
    with Image.open(folder / "0.jpg") as picture:
        picture.save(folder / "0.png")
    shards = shards_of(folder, [*names, "0.png"])
    assert (shards.summary["image"]["format"], shards.summary["samples"]) == ("npy", 4)
    assert len({image.tobytes() for image in by_id(shards).values()}) == 3


def as_png(folder: Path, name: str) -> None:
    """Make a JPEG a PNG, under its old name."""
    with Image.open(folder / name) as picture:
        picture.load()
    picture.save(folder / name, "PNG")


@pytest.mark.parametrize("count", [1, 6])
def test_pngs_named_as_jpegs_are_read_as_what_they_are(folder: Path, count: int) -> None:
    names = write_jpegs(folder, 6)
    expected = by_id(shards_of(folder, names))
    for name in names[:count]:
        as_png(folder, str(name))
    shards = make_shards(
        save_catalog(folder.parent / "store", files_table(folder, names), folder, "png"), SETTINGS, "b"
    )
    assert (shards.summary["image"]["format"], shards.summary["failures"]) == ("npy", 0)
    for object_id, image in by_id(shards).items():
        assert np.array_equal(image, expected[object_id])


def test_jpegs_named_as_something_else_are_kept_as_they_are(folder: Path) -> None:
    names = write_jpegs(folder, 4)
    for name in names:
        (folder / str(name)).rename(folder / f"{name}.png")
    shards = shards_of(folder, [f"{name}.png" for name in names])
    assert (shards.summary["image"]["format"], shards.summary["samples"]) == ("jpg", 4)


def test_a_png_among_more_jpegs_than_are_looked_at_is_found_by_its_first_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = write_jpegs(folder, 12)
    as_png(folder, "5.jpg")
    monkeypatch.setattr("photoz.images.files.LOOKED_AT", 3)
    shards = shards_of(folder, names)
    assert (shards.summary["image"]["format"], shards.summary["samples"]) == ("npy", 12)
    monkeypatch.setattr("photoz.shards.sources.MORE_STARTS", 4)
    few = make_shards(shards.input("catalog"), SETTINGS, "few")
    assert few.summary["image"]["format"] == "jpg"  # and the PNG is counted, with its reason
    assert few.table("failures.parquet").to_pydict()["reason"] == ["other_type"]


def save_fits(folder: Path, units: list[str], names: tuple[str, ...] = ("SCI",)) -> list[str | None]:
    """A FITS file for each unit, with an image of random noise for each name."""
    for number, unit in enumerate(units):
        header = fits.Header({"BUNIT": unit} if unit else {})
        images = [fits.ImageHDU(RNG.normal(size=(16, 16)).astype("f4"), header, name) for name in names]
        fits.HDUList([fits.PrimaryHDU(), *images]).writeto(folder / f"{number}.fits")
    return [f"{number}.fits" for number in range(len(units))]


def test_files_in_another_unit_than_most_are_failures_and_the_unit_is_kept(folder: Path) -> None:
    shards = shards_of(folder, save_fits(folder, ["nmgy", "Jy", "nmgy", "", "nmgy"]))
    failed = shards.table("failures.parquet").to_pydict()
    assert failed["reason"] == ["other_unit"]
    assert failed["detail"] == ["BUNIT = 'Jy', most files say 'nmgy'; convert it first"]
    assert shards.summary["image"]["unit"] == "nmgy"


def test_spellings_of_a_unit_are_one_and_levels_counts_and_a_rare_unit_are_failures_among_fluxes(folder: Path) -> None:
    spellings = folder.parent / "spellings"
    spellings.mkdir()
    one = shards_of(spellings, save_fits(spellings, ["nanomaggy", "nanomaggies", "Nanomaggy ", "nmgy", ""]))
    assert one.summary["samples"] == 5 and one.summary["image"]["unit"] == "nmgy"
    names = save_npy(folder, cubes(8, (16, 16)))
    fits.PrimaryHDU(cubes(1, (16, 16), "i2")[0]).writeto(folder / "counts.fits")
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(folder / "levels.png")
    fits.PrimaryHDU(cubes(1, (16, 16))[0], fits.Header({"BUNIT": "maggy"})).writeto(folder / "stated.fits")
    mixed = shards_of(folder, [*names, "counts.fits", "levels.png", "stated.fits"])
    assert sorted(failures(mixed).values()) == ["other_type", "other_type", "other_unit"]
    assert "unit" not in mixed.summary["image"]


def test_several_hdus_become_bands_and_which_one_is_read_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = save_fits(folder, [""] * 5, ("MASK", "G", "R"))
    with caplog.at_level("WARNING", "photoz.shards"):
        one = shards_of(folder, names)
    assert "hold 3 images (1 MASK, 2 G, 3 R), of which 2 G is read" in caplog.text
    assert one.summary["image"]["channels"] == 1
    both = make_shards(one.input("catalog"), replace(SETTINGS, hdu="G,3"), "both")
    assert both.summary["image"]["channels"] == 2
    for object_id, image in by_id(one).items():
        assert np.array_equal(by_id(both)[object_id][:1], image)
    assert one.settings.keys() ^ both.settings.keys() == {"hdu"}


def test_a_file_whose_first_image_is_another_than_in_most_is_a_failure(folder: Path) -> None:
    names = save_fits(folder, [""] * 4, ("G", "R"))
    with fits.open(folder / "2.fits") as file:
        swapped = fits.HDUList([file[0], file[2], file[1]])
        swapped.writeto(folder / "swapped.fits")
    assert list(failures(shards_of(folder, [*names[:2], "swapped.fits", names[3]])).values()) == ["ambiguous_hdu"]


def test_names_outside_the_locale_are_found_and_written(folder: Path) -> None:
    np.save(folder / "星系é.npy", cubes(1)[0])
    rows = files_table(folder, ["星系é.npy"] * 2)
    names = pa.array(["星系é.npy", "../星系.npy"])
    catalog = save_catalog(
        folder.parent / "store", rows.set_column(rows.column_names.index("image"), "image", names), folder
    )
    ascii_only = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = job_command("shard", "--name", "made", "--store", catalog.store.url)
    made = subprocess.run(command, env=ascii_only, capture_output=True, text=True, check=False)
    assert (made.returncode, "Traceback" in made.stderr) == (0, False), made.stderr
    shards = load(catalog.store, Ref("shards", "made"))
    assert shards.summary["samples"] == 1
    failed = shards.table("failures.parquet").to_pydict()
    assert failed["reason"] == ["outside"] and failed["detail"][0].startswith("../星系.npy leads out of ")


def test_a_folder_that_is_no_utf8_is_read_and_named_in_failures(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "photoz")  # pytest-xdist can't send such a name in a captured line
    latin = folder.parent / os.fsdecode(b"bilder-\xe9")
    latin.mkdir()
    save_npy(latin, cubes(2))
    rows = files_table(latin, ["0.npy", "1.npy"])
    outside = rows.set_column(rows.column_names.index("image"), "image", pa.array(["0.npy", "../1.npy"]))
    catalog = save_catalog(folder.parent / "store", outside, folder)
    shards = make_shards(catalog, replace(SETTINGS, images_from=str(latin)))
    (detail,) = shards.table("failures.parquet").to_pydict()["detail"]
    assert detail.endswith("bilder-\\udce9")
    assert shards.summary["samples"] == 1


@pytest.mark.parametrize(
    ("case", "hdu", "channels", "dtype"),
    [
        ("14-png-named-jpg/all", None, 3, "uint8"),
        ("14-png-named-jpg/some", None, 3, "uint8"),
        ("15-npy-python2/all", None, 3, "float32"),
        ("16-fits-gzip-members/all", None, 3, "float32"),
        ("17-fits-empty-2d-primary/all", None, 3, "float32"),
        ("18-physical-units/cgs", None, 3, "float32"),
        ("35-mef-bands/mask-first", None, 1, "float32"),
        ("35-mef-bands/three", "G,R,I", 3, "float32"),
    ],
)
def test_images_that_once_went_wrong_are_all_read(
    shared_data: Path, tmp_path: Path, case: str, hdu: str | None, channels: int, dtype: str
) -> None:
    folder = shared_data / "field_cases" / case
    names: list[str | None] = sorted(f"im/{path.name}" for path in (folder / "im").iterdir())
    catalog = save_catalog(tmp_path / "store", files_table(folder, names), folder)
    shards = make_shards(catalog, replace(SETTINGS, hdu=hdu))
    image = shards.summary["image"]
    assert (shards.summary["samples"], image["channels"], image["dtype"]) == (48, channels, dtype)
    if case.startswith("35"):
        with fits.open(folder / str(names[0])) as file:
            first = file["G" if hdu else "SCI"].data
        assert any(np.array_equal(image[0], first) for image in by_id(shards).values())


def test_size_cuts_the_middle_out_of_larger_files_and_smaller_ones_are_failures(folder: Path) -> None:
    arrays = [*cubes(6, (3, 40, 44)), *cubes(1, (3, 24, 40))]
    shards = shards_of(folder, save_npy(folder, arrays), replace(SETTINGS, size=32))
    assert list(failures(shards).values()) == ["too_small"]
    middles = {np.ascontiguousarray(array[:, 4:36, 6:38]).tobytes() for array in arrays[:6]}
    assert {image.tobytes() for image in by_id(shards).values()} == middles


def test_larger_jpegs_are_decoded_and_cut_and_those_of_the_size_stay_as_they_are(folder: Path) -> None:
    names = write_jpegs(folder, 6, 96)
    cut = shards_of(folder, names, replace(SETTINGS, size=64))
    assert cut.summary["image"]["format"] == "npy" and cut.summary["image"]["dtype"] == "uint8"
    whole = make_shards(cut.input("catalog"), replace(SETTINGS, size=96), "whole")
    assert whole.summary["image"]["format"] == "jpg"
    decoded = by_id(whole)
    assert all(np.array_equal(image, decoded[i][:, 16:80, 16:80]) for i, image in by_id(cut).items())


def test_values_that_are_not_finite_are_failures(folder: Path) -> None:
    arrays = cubes(5)
    arrays[2][3, 3, 3] = np.nan
    arrays[3] = arrays[3].astype("f8")
    arrays[3][0, 0, 0] = 1e300
    assert list(failures(shards_of(folder, save_npy(folder, arrays))).values()) == ["not_finite", "out_of_range"]


def test_grey_jpegs_have_one_channel(folder: Path) -> None:
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(noise_jpeg(i, 32, "L"))
    images = by_id(shards_of(folder, [f"{i}.jpg" for i in range(3)]))
    assert {image.shape for image in images.values()} == {(1, 32, 32)}


def bad_input(folder: Path, names: list[str | None], match: str, settings: ShardSettings = SETTINGS) -> None:
    with pytest.raises(BadInput, match=match):
        shards_of(folder, names, settings)
    assert not list((folder.parent / "store").glob("shards/*/v*"))


def test_axes_that_can_t_be_told_are_asked_for_and_then_used(folder: Path) -> None:
    names = save_npy(folder, cubes(3, (16, 16, 16)))
    bad_input(folder, names, r"0\.npy: shape 16x16x16 .* --axes chw or hwc")
    shards = make_shards(
        save_catalog(folder.parent / "other", files_table(folder, names), folder), replace(SETTINGS, axes="hwc")
    )
    first = np.load(folder / "0.npy").transpose(2, 0, 1)
    assert any(np.array_equal(image, first) for image in by_id(shards).values())


def test_files_of_many_shapes_are_refused_with_a_way_out(folder: Path) -> None:
    names = save_npy(folder, [cube for size in (20, 21, 22, 23) for cube in cubes(1, (3, size, size))])
    bad_input(folder, names, r"many shapes \(1 of 3x2.*--size PX")


def test_no_usable_file_at_all_is_bad_input(folder: Path) -> None:
    (folder / "a.npy").write_bytes(b"rubbish")
    bad_input(folder, ["a.npy"], r"none can be used, such as a.npy: not_an_image")


def test_a_file_changed_since_the_catalogue_is_bad_input(folder: Path) -> None:
    names = write_jpegs(folder, 5)
    catalog = save_catalog(folder.parent / "store", files_table(folder, names), folder)
    (folder / "2.jpg").write_bytes(noise_jpeg(99))
    with pytest.raises(BadInput, match=r"2\.jpg: not the file that the catalogue was made with"):
        make_shards(catalog, SETTINGS)
    (folder / "2.jpg").unlink()
    with pytest.raises(BadInput, match=r"2\.jpg: No such file or directory; put it back, say --images-from"):
        make_shards(catalog, SETTINGS)


def test_a_moved_folder_is_found_again_with_images_from(folder: Path, tmp_path: Path) -> None:
    catalog = save_catalog(tmp_path / "store", files_table(folder, write_jpegs(folder, 5)), folder)
    folder.rename(tmp_path / "moved")
    with pytest.raises(BadInput, match="--images-from"):
        make_shards(catalog, SETTINGS)
    made = make_shards(catalog, replace(SETTINGS, images_from=str(tmp_path / "moved")))
    assert made.summary["samples"] == 5


@pytest.mark.parametrize("way", ["../secret.jpg", "link.jpg", "linked/secret.jpg"])
def test_no_path_leads_out_of_the_folder(folder: Path, tmp_path: Path, way: str) -> None:
    names = write_jpegs(folder, 5)
    (tmp_path / "secret.jpg").write_bytes(noise_jpeg(50))
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "linked").symlink_to(tmp_path)
    shards = shards_of(folder, [*names, way])
    assert list(failures(shards).values()) == ["outside"]


def test_files_are_taken_where_the_table_names_them_and_asked_for_where_it_does_not(tmp_path: Path) -> None:
    catalog = save_catalog(tmp_path / "store", galaxies_table(5))
    with pytest.raises(BadInput, match="names no image files"):
        make_shards(catalog, ShardSettings(images="files"))
    with pytest.raises(BadInput, match=r"comes from a table; name the survey .* or use --images files"):
        make_shards(catalog, ShardSettings())


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"images": "ugriz"}, "five-band frames are not available yet"),
        ({"size": 63, "images": "jpeg"}, "64 to 2048"),
        ({"size": 2049, "images": "jpeg"}, "64 to 2048"),
        ({"size": 0}, "8 to 4096"),
        ({"samples_per_shard": 0}, "at least 1"),
        ({"scale": float("nan")}, "--scale nan"),
        ({"scale": 0.0}, "--scale 0"),
        ({"hdu": ""}, "--hdu ''"),
        ({"hdu": "1,,2"}, "--hdu '1,,2'"),
    ],
)
def test_settings_that_can_t_work_are_refused_when_made(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(BadInput, match=match):
        ShardSettings(**wrong)  # type: ignore[arg-type]


def test_a_shard_that_loses_all_its_galaxies_is_left_empty(folder: Path) -> None:
    names = write_jpegs(folder, 25)
    catalog = files_table(folder, names)
    for row, split in enumerate(catalog["split"].to_pylist()):
        if split == "val":
            names[row] = None
    shards = shards_of(folder, names)
    assert open_shards(shards).read_shard("val-000000").images_bchw.shape == (0, 3, 64, 64)
    assert shards.summary["splits"] == {"test": 5, "train": 15, "val": 0}


def test_failures_parquet_is_there_even_when_empty(folder: Path) -> None:
    shards = shards_of(folder, write_jpegs(folder, 5))
    table = shards.table("failures.parquet")
    assert table.num_rows == 0
    assert table.column_names == ["object_id", "ra", "dec", "split", "reason", "detail"]
