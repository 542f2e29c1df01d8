"""`photoz-job artifacts status`: what a running or failed job has done, from the store alone."""

import json
from pathlib import Path

import pytest

from photoz.artifacts import Destination, Draft, Store
from photoz.artifacts.status import DraftStatus, in_ranges, status_of
from photoz.errors import BadInput, MissingArtifact, Preempted, TryAgain
from photoz.runtime import TaskSlice
from tests.sample_job import PIECES, write
from tests.test_cli import photoz_job


def begin(store: Store, index: int, count: int, kind: str = "shards") -> Draft:
    return Draft.begin(Destination(store, "x", TaskSlice(index, count)), kind=kind, recipe=1, settings={})


def fail(store: Store, index: int, count: int, error: Exception) -> None:
    with pytest.raises(type(error)), begin(store, index, count) as draft:
        draft.todo(PIECES)
        raise error


def states(draft: DraftStatus) -> dict[int, str]:
    return {one.task: one.state for one in draft.slices}


def test_pieces_and_slices_are_done_at_work_failed_stopped_or_missing(store: Store) -> None:
    write(store, task=TaskSlice(0, 5))
    fail(store, 1, 5, TryAgain("the survey gave no answer\nat https://user:secret@host/x"))
    fail(store, 2, 5, Preempted("stopped by SIGTERM"))
    with begin(store, 3, 5):
        (draft,) = status_of(store, "shards/x")
    assert states(draft) == {0: "done", 1: "failed", 2: "stopped", 3: "at work", 4: "missing"}
    assert (draft.artifact, draft.published, draft.pieces) == ("shards/x", None, 7)
    assert draft.done == ["train-000000", "train-000005"]
    assert draft.missing == [piece for piece in PIECES if piece not in draft.done]
    failed = draft.slices[1]
    assert (failed.exit_code, failed.missing) == (75, ["train-000001", "train-000006"])
    assert failed.message == "the survey gave no answer at https://***@host/x"
    assert draft.slices[2].exit_code == 85


def test_a_slice_that_is_done_again_has_failed_no_longer_and_a_published_draft_lists_no_slices(store: Store) -> None:
    fail(store, 1, 2, ValueError("a bug in \udcff.fits"))  # a name as Python has it that is no UTF-8
    (draft,) = status_of(store, "x")
    assert (draft.pieces, draft.missing) == (None, None)  # task 0, which records them, has not begun
    assert (draft.slices[1].exit_code, draft.slices[1].message) == (None, "ValueError: a bug in ?.fits")
    write(store, task=TaskSlice(1, 2))
    assert states(status_of(store, "x")[0]) == {0: "missing", 1: "done"}
    write(store, task=TaskSlice(0, 2))
    (made,) = status_of(store, "x")
    assert (made.published, made.missing, made.slices) == ("shards/x@v1", [], [])


def test_a_slice_that_fails_in_the_commit_has_failed_although_its_pieces_are_done(store: Store) -> None:
    with pytest.raises(BadInput), begin(store, 0, 1) as draft:
        draft.finish_slice()
        raise BadInput("none of 7 galaxies has a usable image")
    (found,) = status_of(store, "shards/x")
    assert states(found) == {0: "failed"}


def test_a_model_in_the_making_tells_its_last_checkpoint(file_store: Store) -> None:
    with begin(file_store, 0, 1, "model") as draft:
        draft.todo(["model"])
        for step in (1200, 1400):
            draft.save_state(f"training-{step:08d}-0123456789abcdef.pt", b"weights")
        (found,) = status_of(file_store, "model/x")
    assert (found.checkpoint_step, found.missing, states(found)) == (1400, ["model"], {0: "at work"})


def test_damaged_notes_and_drafts_of_older_versions_are_shown_as_far_as_they_tell(file_store: Store) -> None:
    write(file_store, task=TaskSlice(0, 2))
    (folder,) = {item.key.partition("parts/")[0] for item in file_store.list("shards/x/data/") if "/parts/" in item.key}
    file_store.put(folder + "parts/plan.json", b"[")
    file_store.put(folder + "parts/claims/1.json", b"{}")
    file_store.put(folder + "parts/claims/2.json", b'{"task": 0, "tasks": 99999999999}')
    file_store.put(folder + "parts/failed/00001-of-00002.json", b"3")
    (draft,) = status_of(file_store, "shards/x")
    assert (states(draft), draft.missing) == ({0: "done", 1: "failed"}, None)


def test_a_name_without_a_draft_and_a_name_that_is_none_are_said(file_store: Store) -> None:
    with pytest.raises(MissingArtifact, match="nothing-here: no job has written under that name"):
        status_of(file_store, "nothing-here")
    with pytest.raises(BadInput, match="ref 'X!'"):
        status_of(file_store, "X!")


@pytest.mark.parametrize("name", ["shards/x@v7", "x@v1", "x@latest"])
def test_a_version_is_refused_as_status_shows_them_all(
    file_store: Store, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write(file_store)
    assert photoz_job("artifacts", "status", name, "--store", file_store.url) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1
    assert f"{name}: status shows all versions and drafts of a name: expected {name.partition('@')[0]};" in shown.err


def test_a_store_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert photoz_job("artifacts", "status", "nope", "--store", str(tmp_path / "none")) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"there is no store {tmp_path / 'none'};" in line and "no job has written" not in line
    assert not (tmp_path / "none").exists()


def test_numbers_are_shown_as_ranges() -> None:
    assert in_ranges([5, 0, 1, 2, 9, 8]) == "0-2, 5, 8-9"


def test_the_command_prints_a_table_or_json(file_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    write(file_store, task=TaskSlice(0, 3))
    fail(file_store, 1, 3, TryAgain("no answer"))
    assert photoz_job("artifacts", "status", "x", "--store", file_store.url) == 0
    shown = capsys.readouterr().out
    for expected in ("3 of 7 pieces", "1 of 3 slices: 0", "exit code 75: no answer", "1 of 3 slices: 2"):
        assert expected in shown
    assert photoz_job("artifacts", "status", "x", "--store", file_store.url, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["slices"][1]["state"] == "failed"
    assert photoz_job("artifacts", "status", "y", "--store", file_store.url) == 3
    assert capsys.readouterr().out == ""
