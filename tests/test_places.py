"""Where a store is: every name leads to one place, or is refused in one line; what is not there is said."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from photoz.artifacts import Ref, Store, load, open_store
from photoz.errors import BadInput, MissingArtifact
from photoz.runtime import cache_folder
from tests.sample_job import write
from tests.test_cli import one_line, photoz_job, publish


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, and the user's home in it."""
    home = tmp_path / "work"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home / "home"))
    return home


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("../x", "../x"),
        ("a/../../b", "../b"),
        ("a/./b/..", "a"),
        ("./s3:x", "s3:x"),
        ("a#1?x", "a#1?x"),
        ("a%20b", "a%20b"),
        ("~/x", "home/x"),
        ("./~", "~"),
        ("a~b", "a~b"),
        ("file://{here}/a", "a"),
        ("FILE://localhost{here}/a", "a"),
        ("file:{here}/a", "a"),
        ("file://{here}/a/../b", "b"),
        ("file://{here}/%2e%2e/b", "../b"),
        ("file://{here}/a%20b", "a b"),
        ("file://{here}/a%2520b", "a%20b"),
        ("file://{here}/a%231%3Fx", "a#1?x"),
        ("file://{here}/caf%C3%A9", "café"),
        ("file://{here}/a;b=c&d", "a;b=c&d"),
    ],
)
def test_a_store_is_written_shown_and_opened_again_at_one_place(url: str, folder: str, at_home: Path) -> None:
    expected = (at_home / folder).resolve()
    store = open_store(url.format(here=at_home))
    write(store)
    assert store.url == str(expected)
    assert (expected / "shards" / "x" / "v1" / "manifest.json").is_file()
    assert store.local_path("shards/x/v1/manifest.json") == expected / "shards" / "x" / "v1" / "manifest.json"
    assert load(open_store(store.url), Ref("shards", "x")).ref.version == 1


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "names no place"),
        ("file:///a#1", "write %23 or %3F"),
        ("file:///a?x", "write %23 or %3F"),
        ("file:///a%", "write %25"),
        ("file:///a%2", "write %25"),
        ("file:///a%zz", "write %25"),
        ("file:///a%00b", "byte"),
        ("file:relative", "the whole path"),
        ("file:~/x", "the whole path"),
        ("file:", "the whole path"),
        ("file://", "the whole path"),
        ("file://host/a", "names no host"),
        ("file://relative", "names no host"),
        (" s3://bucket/x", "expected s3://bucket/prefix"),
        ("s3:bucket/x", "expected s3://bucket/prefix"),
        ("s3:/bucket/x", "expected s3://bucket/prefix"),
        ("s3://", "names no bucket"),
        ("gs://bucket/x", "expected s3://bucket/prefix"),
        ("s3://bucket/a/../c", "'..'"),
        ("s3://bucket/./c", "'.'"),
        ("s3://bucket//c", "between two '/'"),
        ("s3://bucket/a//c", "between two '/'"),
        ("s3://bucket/a#b", "'#'"),
        ("s3://bucket/a?b", "'?'"),
        ("s3://bucket/caf\udce9", "no UTF-8"),
        ("s3://bucket/a\n", "control character"),
        ("caf\udce9", "no UTF-8"),
        ("file:///caf%E9", "no UTF-8"),
        ("a\tb", "control character"),
        ("~no-such-user/x", "./~no-such-user/x"),
        ("x" * 300, "too long"),
    ],
)
def test_a_place_that_could_be_another_is_refused_in_one_line(url: str, says: str, at_home: Path) -> None:
    with pytest.raises(BadInput) as refused:
        open_store(url)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert list(at_home.iterdir()) == []


def test_a_cache_in_the_home_is_no_folder_called_tilde(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOZ_CACHE", "~/cache")
    assert cache_folder() == at_home / "home" / "cache"


def test_two_dots_after_a_link_lead_where_the_shell_goes(tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert open_store(f"{tmp_path}/link/../x").url == str(tmp_path / "far" / "x")


def test_links_in_a_circle_are_said(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    with pytest.raises(BadInput, match="name another folder"):
        open_store(f"{tmp_path}/b/../a")


def test_a_folder_of_other_things_is_listed_without_looking_into_them(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "manifest.json").write_text("someone else's")
    write(open_store(str(tmp_path)))
    assert photoz_job("artifacts", "ls", "--store", str(tmp_path)) == 0


# What is not there


@pytest.mark.parametrize(
    "command",
    [
        ["artifacts", "ls"],
        ["artifacts", "ls", "--json"],
        ["artifacts", "gc"],
        ["artifacts", "show", "model/x"],
        ["artifacts", "verify", "model/x@v1"],
        ["artifacts", "export", "model/x", "out"],
        ["artifacts", "diff", "model/x@v1", "model/x@v2"],
        ["artifacts", "rm", "model/x@v1"],
        ["shard"],
        ["train"],
        ["infer"],
        ["evaluate"],
    ],
)
def test_a_store_that_does_not_exist_is_said_with_exit_code_3(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "no" / "such"
    assert photoz_job(*command, "--store", str(missing)) == 3
    said = capsys.readouterr()
    assert f"there is no store {missing}" in one_line(said.err) and said.out == ""
    assert not missing.exists()


def test_a_store_that_is_empty_is_said_with_exit_code_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert photoz_job("artifacts", "ls", "--store", str(tmp_path)) == 0
    assert f"no artifacts in {tmp_path}" in capsys.readouterr().out
    assert photoz_job("artifacts", "ls", "--store", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    monkeypatch.setenv("PHOTOZ_STORE", "")  # as if unset: the default
    monkeypatch.chdir(tmp_path)
    assert photoz_job("artifacts", "ls") == 3
    assert f"there is no store {tmp_path / 'photoz-store'}" in one_line(capsys.readouterr().err)


@pytest.mark.real
def test_a_bucket_that_does_not_exist_is_said(s3_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert photoz_job("artifacts", "ls", "--store", "s3://no-such-bucket-here/x") == 2
    assert "there is no bucket 'no-such-bucket-here'" in one_line(capsys.readouterr().err)
    assert photoz_job("artifacts", "ls", "--store", s3_url) == 0


def missing(store: Store, ref: str) -> str:
    with pytest.raises(MissingArtifact) as caught:
        load(store, Ref.parse(ref))
    return str(caught.value)


def test_a_missing_version_lists_those_there_are_and_those_removed(file_store: Store) -> None:
    for seed in range(4):
        write(file_store, settings={"seed": seed})
    assert photoz_job("artifacts", "rm", "shards/x@v3", "--store", file_store.url) == 0
    assert "(there are v1, v2, v4; v3 was removed)" in missing(file_store, "shards/x@v9")
    assert "(there are v1, v2, v4; v3 was removed)" in missing(file_store, "shards/x@v3")
    for number in (1, 2):
        assert photoz_job("artifacts", "rm", f"shards/x@v{number}", "--store", file_store.url) == 0
    assert "(there is v4; v1, v2, v3 were removed)" in missing(file_store, "shards/x@v9")
    assert photoz_job("artifacts", "rm", "shards/x@v4", "--store", file_store.url) == 0
    for ref in ("shards/x@v4", "shards/x"):
        assert "(v1, v2, v3, v4 were removed)" in missing(file_store, ref)


def test_a_missing_name_lists_close_ones_and_those_of_its_kind(file_store: Store) -> None:
    for name in ("virgo", "mgs", "mgs-wide"):
        publish(file_store, name)
    said = missing(file_store, "catalog/virgi")
    assert "did you mean catalog/virgo? there are catalog/mgs, catalog/mgs-wide, catalog/virgo" in said
    assert "did you mean" not in missing(file_store, "catalog/coma")
    assert "there is no model artifact yet" in missing(file_store, "model/mgs")


def test_of_many_names_the_first_and_last_are_listed(file_store: Store) -> None:
    for number in range(12):
        publish(file_store, f"n{number:02d}")
    assert "(there are catalog/n00, catalog/n01, catalog/n02, …, catalog/n09, catalog/n10, catalog/n11)" in missing(
        file_store, "catalog/other"
    )


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("mgs", "such as model/mgs; the kinds are catalog, shards, model, predictions, report"),
        ("mgs@v2", "such as model/mgs@v2"),
        ("", "such as model/mgs@v3"),
        ("Model/MGS@V2", "did you mean model/mgs@v2?"),
        ("models/mgs", "did you mean model/mgs?"),
        ("catalogue/virgo@latest", "did you mean catalog/virgo@latest?"),
        ("model/mgs@2", "did you mean model/mgs@v2?"),
        ("model/mgs@v01", "did you mean model/mgs@v1?"),
        ("model/mgs@vlatest", "did you mean model/mgs@latest?"),
        ("model/mgs@", "did you mean model/mgs?"),
        ("model/mgs@v0", "'v0' is no version: expected v1, v2, …"),
        ("model/mgs@newest", "'newest' is no version"),
        ("model/mgs@v9999999999", "is no version"),
        ("galaxies/mgs", "'galaxies' is no kind; expected one of catalog, shards"),
        ("model/my net", "'my net' is no name: 1 to 63 of a-z"),
        ("model/a/b", "'a/b' is no name"),
        ("model/\udce9", "'\\udce9' is no name"),
        ("model/../x", "'../x' is no name"),
    ],
)
def test_a_ref_that_is_none_is_one_line_that_says_what_was_meant(ref: str, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        Ref.parse(ref)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    if "did you mean" in says:
        Ref.parse(says.removeprefix("did you mean ").removesuffix("?"))


def test_a_ref_of_another_kind_is_never_turned_into_one_of_the_kind_asked_for() -> None:
    for ref in ("Shards/x", "shards/x", "shard/x@3"):
        with pytest.raises(BadInput, match="expected an artifact of kind model"):
            Ref.parse(ref, kind="model")
    with pytest.raises(BadInput, match=r"did you mean model/x@v3\?"):
        Ref.parse("x@3", kind="model")


# Names that are no text


def test_names_that_are_no_text_work_or_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = f"{tmp_path}/"
    store, out, strange = (here + os.fsdecode(name) for name in ("café".encode(), b"\xe9xport", b"n\xf6ne"))
    table = Path(here + os.fsdecode(b"t\xe4ble.csv"))
    table.write_text("object_id,ra,dec,z_spec\na,1,2,0.1\n")
    publish(open_store(store), "x")
    commands = [
        (["artifacts", "ls", "--store", store], 0),
        (["artifacts", "export", "catalog/x", out, "--store", store], 0),
        (["artifacts", "export", "catalog/x", out + "2", "--json", "--store", store], 0),
        (["artifacts", "export", "catalog/x", out, "--json", "--store", store], 2),
        (["artifacts", "ls", "--store", strange], 2),
        (["train", "--name", "\udce9", "--store", store], 2),
        (["catalog", "--survey", "table", "--table", strange, "--store", store], 2),
        (["catalog", "--survey", "table", "--table", str(table), "--store", store], 0),
    ]
    for arguments, code in commands:
        assert photoz_job(*arguments) == code, arguments
        said = capsys.readouterr()
        if code:
            assert one_line(said.err).startswith("photoz-job: error: ")
    assert (Path(out) / "rows.bin").read_bytes() == b"x" * 100


ASCII_ONLY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.real
def test_a_terminal_that_can_not_show_a_name_and_a_name_the_locale_can_not_hold_are_no_bug(tmp_path: Path) -> None:
    store = tmp_path / "Ångström"
    store.mkdir()
    (tmp_path / "mine.csv").write_bytes("object_id,ra,dec,z_spec,image\na,10,2,0.1,星系.jpg\n".encode())
    read = ["catalog", "--survey", "table", "--table", str(tmp_path / "mine.csv"), "--store", str(tmp_path / "store")]
    for arguments, code in ((["artifacts", "ls", "--store", str(store)], 2), (read, 2)):
        done = subprocess.run(
            [sys.executable, "-m", "jobs", *arguments],
            capture_output=True, timeout=200, check=False, env=dict(os.environ) | ASCII_ONLY,
        )  # fmt: skip
        assert done.returncode == code and b"Traceback" not in done.stderr, done.stderr
        assert b"set LC_ALL=C.UTF-8" in done.stderr.splitlines()[-1]


def test_a_name_that_is_no_utf_8_in_the_settings_is_refused_by_name(file_store: Store) -> None:
    with pytest.raises(BadInput, match=r"'caf\\udce9.csv' holds bytes that are no UTF-8"):
        write(file_store, settings={"seed": 1, "table": "caf\udce9.csv"})
