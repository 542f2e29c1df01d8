"""Stores that can't be written: full, read-only, not a folder. One line, the right exit code, nothing half-written."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from photoz.artifacts import Destination, Draft, Ref, Store, load, open_store
from photoz.errors import BadInput, MissingArtifact, TryAgain

pytestmark = pytest.mark.real

Mount = Callable[[str], Path]


@pytest.fixture
def mount_tmpfs(tmp_path: Path) -> Iterator[Mount]:
    """Mounts small file systems of the test's own; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"mount{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


def photoz_job(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments], capture_output=True, text=True, timeout=200, check=False
    )
    return done.returncode, done.stdout, done.stderr


def published(store: Path) -> list[Path]:
    return list(store.rglob("manifest.json"))


def leftovers(store: Path) -> list[Path]:
    return [path for path in store.rglob(".tmp-*") if path.is_file()]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small table of galaxies."""
    path = tmp_path_factory.mktemp("table") / "galaxies.csv"
    rows = [f"g{i},{150 + 0.7 * i},{0.3 * i - 20},{0.05 + 0.001 * i}" for i in range(120)]
    path.write_text("\n".join(["object_id,ra,dec,z_spec", *rows]) + "\n")
    return path


def test_a_full_disk_is_75_and_goes_on_once_there_is_space(mount_tmpfs: Mount, table: Path) -> None:
    place = mount_tmpfs("size=64k")
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"\0" * 4096)
    command = ["catalog", "--survey", "table", "--table", str(table), "--name", "x", "--store", str(place / "store")]
    code, out, err = photoz_job(*command)
    assert (code, out) == (75, ""), err
    assert "No space left" in err.splitlines()[-1] or "no space left" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert published(place) == leftovers(place) == []
    filler.unlink()
    code, out, err = photoz_job(*command)
    assert code == 0, err
    assert len(published(place)) == 1


def test_a_read_only_folder_is_2(mount_tmpfs: Mount, table: Path) -> None:
    place = mount_tmpfs("size=1m,ro")
    code, out, err = photoz_job("catalog", "--survey", "table", "--table", str(table), "--store", str(place / "store"))
    assert (code, out) == (2, ""), err
    assert "Read-only" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_file_where_the_store_should_be_is_2(tmp_path: Path, table: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    code, out, err = photoz_job(
        "catalog", "--survey", "table", "--table", str(table), "--store", str(tmp_path / "store")
    )
    assert (code, out) == (2, "")
    assert "is a file; expected a folder" in err


def test_a_store_that_is_not_there_has_no_artifacts(tmp_path: Path) -> None:
    code, out, err = photoz_job("train", "--store", str(tmp_path / "nowhere"))
    assert (code, out) == (3, "")
    assert "shards/mgs" in err and "nowhere" in err
    assert not (tmp_path / "nowhere").exists()


def test_a_disk_that_fills_up_in_the_middle_leaves_no_part_of_a_file(mount_tmpfs: Mount) -> None:
    store: Store = open_store(str(mount_tmpfs("size=256k") / "store"))
    with Draft.begin(Destination(store, "x"), kind="shards", recipe=1, settings={}) as draft:
        draft.finish_piece("a", [draft.put("a.tar", os.urandom(100_000))])
        with pytest.raises(TryAgain, match="No space left"):
            draft.put("b.tar", os.urandom(300_000))
    assert [item.key for item in store.list("shards/x/data/") if item.key.endswith((".tar", ".tmp"))] == [
        f"shards/x/data/{draft.fingerprint}/a.tar"
    ]
    with pytest.raises(MissingArtifact):
        load(store, Ref("shards", "x"))


def test_a_store_in_a_read_only_folder_still_reads(mount_tmpfs: Mount) -> None:
    place = mount_tmpfs("size=1m")
    store = open_store(str(place / "store"))
    with Draft.begin(Destination(store, "x"), kind="catalog", recipe=1, settings={}) as draft:
        draft.put("rows.bin", b"rows")
        draft.commit({})
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    assert load(store, Ref("catalog", "x")).read("rows.bin") == b"rows"
    with pytest.raises(BadInput, match="Read-only"):
        store.put("catalog/x/data/y", b"")
