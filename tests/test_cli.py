"""The command line: help, one-line errors, exit codes, the JSON line, environment variables."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.app import app
from jobs.session import exit_code_of
from photoz.artifacts import Destination, Draft, Ref, Store, load

COMMANDS = ["catalog", "shard", "train", "infer", "evaluate", "run", "doctor"]
ARTIFACTS = ["ls", "show", "status", "verify", "export", "diff", "rm", "gc"]


def photoz_job(*arguments: str) -> int:
    """Run photoz-job in this process and return its exit code."""
    return exit_code_of(lambda: app(list(arguments), standalone_mode=False))


def publish(store: Store, name: str, kind: str = "catalog", inputs: tuple[Any, ...] = ()) -> None:
    with Draft.begin(Destination(store, name), kind=kind, recipe=1, settings={"for": name}, inputs=inputs) as draft:
        draft.put("rows.bin", name.encode() * 100, rows=100)
        draft.commit({"rows": 100})


def one_line(captured: str) -> str:
    lines = captured.strip().splitlines()
    assert len(lines) == 1, captured
    return lines[0]


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), *(["artifacts", name] for name in ARTIFACTS)])
def test_every_command_has_help_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert photoz_job(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Example" in shown
    assert f"photoz-job {' '.join(command)}" in " ".join(shown.split())


@pytest.mark.parametrize("command", ["catalog", "shard", "train", "infer", "evaluate", "run"])
def test_every_flag_of_a_job_names_its_variable(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    photoz_job(command, "--help")
    shown = capsys.readouterr().out
    for flag in ("store", "name", "wait", "task", "tasks", "log-format"):
        assert f"--{flag}" in shown
        assert f"PHOTOZ_{flag.upper().replace('-', '_')}" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["train", "--epochs", "-1"], 2, "-1"),
        (["train", "--epochs", "many"], 2, "many"),
        (["train", "--no-such-flag"], 2, "--no-such-flag"),
        (["catalog", "--survey", "embedded", "--limit", "0"], 2, "0"),
        (["no-such-command"], 2, "no-such-command"),
        (["train", "--shards", "catalog/x"], 2, "kind shards"),
        (["train", "--shards", "shards/../x"], 2, "shards/../x"),
        (["train", "--name", "Bad Name"], 2, "'Bad Name'"),
        (["train", "--wait", "soon"], 2, "'soon'"),
        (["train", "--task", "3"], 2, "--task 3"),
        (["train", "--shards", "shards/none"], 3, "shards/none"),
        (["evaluate", "--predictions", "predictions/none@v7"], 3, "predictions/none@v7"),
        (["artifacts", "show", "model/none"], 3, "model/none"),
        (["artifacts", "ls", "--kind", "galaxies"], 2, "galaxies"),
        (["train", "--store", "ftp://host/x"], 2, "ftp://host/x"),
    ],
)
def test_a_users_mistake_is_one_line_and_its_exit_code(
    arguments: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PHOTOZ_STORE", str(tmp_path / "store"))
    assert photoz_job(*arguments) == code
    captured = capsys.readouterr()
    line = one_line(captured.err)
    assert line.startswith("photoz-job: error: ")
    assert says in line
    assert captured.out == ""
    assert not (tmp_path / "store").exists()


def test_artifacts_are_listed_for_people_and_for_scripts(
    file_store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOZ_STORE", file_store.url)
    publish(file_store, "a")
    publish(file_store, "b", "shards", (load(file_store, Ref("catalog", "a")),))
    photoz_job("artifacts", "ls")
    assert "catalog/a@v1" in capsys.readouterr().out
    photoz_job("artifacts", "ls", "--json", "--kind", "shards")
    rows = json.loads(capsys.readouterr().out)
    assert [(row["artifact"], row["bytes"]) for row in rows] == [("shards/b@v1", 100)]
    photoz_job("artifacts", "show", "shards/b", "--json")
    assert json.loads(capsys.readouterr().out)["inputs"][0]["ref"] == "catalog/a@v1"
    photoz_job("artifacts", "show", "shards/b")
    shown = capsys.readouterr().out
    assert "catalog/a@v1" in shown and "rows.bin" in shown


SUMMARIES: dict[str, dict[str, Any]] = {
    "catalog": {"rows": 12345},
    "shards": {"samples": 12000, "galaxies": 12345, "image": {"channels": 3, "height": 64, "width": 48}},
    "model": {"model": "aperture-cnn", "galaxies": {"train": 9000}, "validation": {"val_sigma_mad": 0.01234}},
    "predictions": {"galaxies": 3000, "model": "aperture-cnn", "splits": ["test"]},
    "report": {"scored": 2990, "predicted": 3000, "split": "test", "sigma_mad": 0.02},
}


def test_ls_shows_galaxies_network_images_and_the_headline_metric(
    file_store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOZ_STORE", file_store.url)
    for kind, summary in SUMMARIES.items():
        with Draft.begin(Destination(file_store, "x"), kind=kind, recipe=1, settings={}) as draft:
            draft.put("rows.bin", b"x")
            draft.commit(summary)
    photoz_job("artifacts", "ls", "--json")
    shown = {row["artifact"]: row for row in json.loads(capsys.readouterr().out)}
    columns = ("galaxies", "network", "images", "sigma_mad", "sigma_mad_of")
    assert {ref.partition("/")[0]: tuple(row[name] for name in columns) for ref, row in shown.items()} == {
        "catalog": (12345, None, None, None, None),
        "shards": (12000, None, "3 x 64 x 48", None, None),
        "model": (9000, "aperture-cnn", None, 0.01234, "val"),
        "predictions": (3000, "aperture-cnn", None, None, None),
        "report": (2990, None, None, 0.02, "test"),
    }
    photoz_job("artifacts", "ls")
    lines = {line.split()[0]: " ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert lines["model/x@v1"].startswith("model/x@v1 9,000 aperture-cnn 0.0123 val ")
    assert lines["shards/x@v1"].startswith("shards/x@v1 12,000 3 x 64 x 48 ")
    assert lines["report/x@v1"].startswith("report/x@v1 2,990 0.0200 test ")


@pytest.mark.parametrize(
    "summary",
    [{}, {"galaxies": "many", "model": 3, "validation": 1, "image": [], "sigma_mad": {}, "rows": None}],
)
def test_ls_leaves_blank_what_an_old_or_odd_summary_lacks(
    summary: dict[str, Any], file_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in SUMMARIES:
        with Draft.begin(Destination(file_store, "x"), kind=kind, recipe=1, settings={}) as draft:
            draft.commit(summary)
    assert photoz_job("artifacts", "ls", "--store", file_store.url, "--json") == 0
    for row in json.loads(capsys.readouterr().out):
        assert [row[name] for name in ("galaxies", "network", "images", "sigma_mad", "sigma_mad_of")] == [None] * 5
    assert photoz_job("artifacts", "ls", "--store", file_store.url) == 0


def test_verify_names_a_flipped_byte_and_exits_5(
    file_store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOZ_STORE", file_store.url)
    publish(file_store, "a")
    assert photoz_job("artifacts", "verify", "catalog/a") == 0
    path = file_store.local_path(load(file_store, Ref("catalog", "a")).entry("rows.bin").path)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[50] ^= 4
    path.write_bytes(bytes(data))
    capsys.readouterr()
    assert photoz_job("artifacts", "verify", "catalog/a") == 5
    assert "rows.bin" in one_line(capsys.readouterr().err.splitlines()[-1])


def test_rm_of_an_input_is_refused_with_exit_code_4(
    file_store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOZ_STORE", file_store.url)
    publish(file_store, "a")
    publish(file_store, "a", "shards", (load(file_store, Ref("catalog", "a")),))
    assert photoz_job("artifacts", "rm", "catalog/a") == 2  # which version?
    assert photoz_job("artifacts", "rm", "catalog/a@v1") == 4
    assert "shards/a@v1" in capsys.readouterr().err
    assert photoz_job("artifacts", "rm", "shards/a@latest") == 0
    assert photoz_job("artifacts", "rm", "catalog/a@v1") == 0


def test_gc_deletes_only_when_told_to(
    file_store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOZ_STORE", file_store.url)
    publish(file_store, "a")
    with Draft.begin(Destination(file_store, "a"), kind="catalog", recipe=1, settings={"dead": 1}) as draft:
        draft.put("rows.bin", b"half")
    assert photoz_job("artifacts", "gc", "--older-than", "0", "--json") == 0
    assert [item["bytes"] for item in json.loads(capsys.readouterr().out)["objects"]] == [4]
    assert photoz_job("artifacts", "gc", "--older-than", "0", "--yes") == 0
    capsys.readouterr()
    assert photoz_job("artifacts", "gc", "--older-than", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["objects"] == []
    assert photoz_job("artifacts", "verify", "catalog/a") == 0
