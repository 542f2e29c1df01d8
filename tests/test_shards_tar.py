"""Tars written by hand are plain USTAR, for tarfile, GNU tar and byte for byte."""

import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from photoz.errors import TryAgain
from photoz.shards.tar import ShardTar, ustar_header

NAMES = st.from_regex(re.compile(r"[A-Za-z0-9_-]{1,80}\.(jpg|npy|json)", re.ASCII), fullmatch=True)


@given(NAMES, st.integers(0, 8**11 - 1))
def test_a_header_is_what_tarfile_writes(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    assert ustar_header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "size"), [("x" * 101, 0), ("x", 8**11)])
def test_what_does_not_fit_a_header_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        ustar_header(name, size)


def write(path: Path, members: dict[str, bytes]) -> dict[str, int]:
    with ShardTar(path) as tar:
        return {name: tar.add(name, data) for name, data in members.items()}


def test_offsets_point_at_the_members_bytes(tmp_path: Path) -> None:
    members = {f"{size}.jpg": bytes([size % 256]) * size for size in (0, 1, 511, 512, 513, 5000)}
    offsets = write(tmp_path / "a.tar", members)
    whole = (tmp_path / "a.tar").read_bytes()
    for name, data in members.items():
        assert whole[offsets[name] : offsets[name] + len(data)] == data


def test_gnu_tar_lists_and_unpacks_it_without_a_word_of_complaint(tmp_path: Path) -> None:
    members = {f"galaxy_{i}.jpg": bytes(100 * i) for i in range(20)}
    write(tmp_path / "a.tar", members)
    done = subprocess.run(["tar", "-xvf", "a.tar"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (list(members), "")
    assert all((tmp_path / name).read_bytes() == data for name, data in members.items())
    listed = subprocess.run(["tar", "-tvf", "a.tar", "--utc"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert listed.stdout.startswith("-rw-r--r-- 0/0 ") and "1970-01-01 00:00" in listed.stdout


def test_a_tar_left_by_an_error_has_no_end_mark(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ShardTar(tmp_path / "a.tar") as tar:
        tar.add("a.jpg", b"x")
        raise KeyError
    assert (tmp_path / "a.tar").stat().st_size == 1024


def test_a_full_disk_means_try_again() -> None:
    with pytest.raises(TryAgain, match="No space left on device"), ShardTar(Path("/dev/full")) as tar:
        tar.add("a.jpg", bytes(2**21))
