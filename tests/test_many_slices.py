"""What a slice and the commit cost when there are many slices: requests are counted, and nothing is read twice."""

import itertools
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from photoz import runtime
from photoz.artifacts import Destination, Draft, Ref, Store, load, open_store, upkeep
from photoz.artifacts.finished import Finished
from photoz.artifacts.garbage import delete_garbage, garbage
from photoz.artifacts.probe import ensure_conditional_create
from photoz.artifacts.refs import FINISHED, slice_receipt_name
from photoz.errors import MissingArtifact, Preempted, TryAgain
from photoz.runtime import TaskSlice
from tests.counting_store import Counting
from tests.sample_job import write
from tests.stepped_store import Stepped


def pieces(count: int) -> list[str]:
    return [f"train-{number:06d}" for number in range(count)]


def run_slice(store: Store, index: int, count: int, settings: dict[str, object] | None = None) -> Counting:
    """Run one slice of as many pieces as slices; returns what it asked the store for."""
    counted = Counting(store)
    outcome = write(counted, task=TaskSlice(index, count), pieces=pieces(count), settings=settings)
    assert outcome.status == ("partial" if index < count - 1 else "created")
    return counted


def test_a_slice_makes_as_many_requests_of_200_slices_as_of_10(file_store: Store) -> None:
    run_slice(file_store, 0, 1, {"before": True})  # whose manifest no other has to read
    few, many = ([run_slice(file_store, i, n, {"n": n}) for i in range(n)] for n in (10, 200))
    usual = few[5].requests
    assert sum(usual.values()) <= 16
    # All but those which complete a group of 32, and the first, which writes the plan.
    assert [one.requests for one in few[1:-1]] == [usual] * 8
    assert [one.requests for one in many[1:31]] == [usual] * 30
    assert [one.requests for one in many[32:63]] == [usual] * 31
    assert max(sum(one.requests.values()) for one in many[:-1]) <= sum(usual.values()) + 5
    # The commit reads one receipt a slice and one stage file a piece.
    assert sum(few[-1].requests.values()) <= 2 * 10 + 30
    assert sum(many[-1].requests.values()) <= 2 * 200 + 40
    assert sum(one.listed for one in many[:-1]) <= 200 * 40


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9, 17])
def test_whoever_is_last_finds_all_levels_complete(file_store: Store, count: int) -> None:
    finished = Finished(file_store, "x/", count, fan_out=2)
    order = sorted(range(count), key=lambda index: index * 7 % 5)
    for index in order:
        file_store.put("x/" + slice_receipt_name(index, count), b"{}")
        assert finished.add(index) == (index == order[-1])
    assert all(finished.add(index) for index in order)


def test_slices_done_by_a_program_without_marks_are_taken_up(store: Store) -> None:
    for index in range(39):
        run_slice(store, index, 40)
    for item in list(store.list("shards/x/data/")):
        if FINISHED in item.key:
            store.delete(item.key)
    run_slice(store, 39, 40)
    assert load(store, Ref("shards", "x")).summary == {"failed": 40}


def test_another_number_of_slices_goes_on_with_the_same_pieces(store: Store) -> None:
    names = pieces(6)
    for index, count, made in ((0, 2, 3), (0, 3, 1), (2, 3, 1), (1, 3, 1)):
        dest = Destination(store, "x", TaskSlice(index, count))
        with Draft.begin(dest, kind="shards", recipe=1, settings={}) as draft:
            todo = draft.todo(names)
            assert len(todo) == made
            for piece in todo:
                draft.finish_piece(piece, [draft.put(f"{piece}.tar", piece.encode())])
            assert draft.finish_slice() == ((index, count) == (1, 3))
    assert [receipt.piece for receipt in draft.receipts()] == names


def test_a_receipt_that_has_gone_names_the_slice_that_makes_it_again(store: Store) -> None:
    names = pieces(3)
    for index in (0, 1):
        write(store, task=TaskSlice(index, 3), pieces=names)
    (folder,) = {item.key.partition("parts/")[0] for item in store.list("shards/x/data/") if "/parts/" in item.key}
    store.delete(folder + slice_receipt_name(1, 3))
    with pytest.raises(MissingArtifact, match=r"00001-of-00003\.json: gone .*--task 1 --tasks 3"):
        write(store, task=TaskSlice(2, 3), pieces=names)
    assert write(store, task=TaskSlice(1, 3), pieces=names).status == "created"


def test_a_removal_that_fails_half_way_leaves_no_mark_without_its_receipt(store: Store) -> None:
    for index in range(3):
        run_slice(store, index, 4)

    class Failing(Counting):
        def delete(self, key: str) -> None:
            super().delete(key)
            if self.requests["delete"] == 5 and "clearing" not in key:
                raise TryAgain("the store fails")

    with pytest.raises(TryAgain):
        delete_garbage(Failing(store), garbage(store, older_than_s=-5), older_than_s=-5)
    names = [item.key.partition("/parts/")[2] for item in store.list("shards/x/data/")]
    marked = {int(name[-10:-5]) for name in names if name.startswith("finished/")}
    assert marked <= {int(name[:5]) for name in names if name.endswith("-of-00004.json")}
    statuses = [write(store, task=TaskSlice(index, 4), pieces=pieces(4)).status for index in range(4)]
    assert statuses == ["partial", "partial", "partial", "created"]
    upkeep.verify(load(store, Ref("shards", "x")))


def test_a_commit_that_is_asked_to_stop_ends_between_two_reads_and_goes_on_later(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(69):
        run_slice(file_store, index, 70)
    stop: list[int] = []
    monkeypatch.setattr(runtime, "_stop_signal", stop)

    class Stopping(Counting):
        def get(self, key: str, limit: int = 2**28) -> bytes:
            if key.endswith("-of-00070.json"):
                self.requests["receipts"] += 1
                if self.requests["receipts"] == 20:
                    stop.append(signal.SIGTERM)
            return super().get(key, limit)

    stopping = Stopping(file_store)
    with pytest.raises(Preempted):
        write(stopping, task=TaskSlice(69, 70), pieces=pieces(70))
    assert stopping.requests["receipts"] < 70
    stop.clear()
    assert write(file_store, task=TaskSlice(69, 70), pieces=pieces(70)).status == "created"


def test_a_slice_that_dies_before_any_of_its_requests_is_done_again_alone(
    file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photoz.artifacts.draft.Finished", partial(Finished, fan_out=2))  # two levels of marks
    slices = [partial(write, task=TaskSlice(index, 4), pieces=pieces(4)) for index in range(4)]
    for one in slices[:3]:
        one(file_store)
    for steps in itertools.count():
        store = open_store(str(shutil.copytree(file_store.url, tmp_path / str(steps))))
        ensure_conditional_create(store)
        killed = Stepped(store, slices[3])
        for _ in range(steps):
            killed.step()
        whole = killed.ended
        killed.kill()
        assert slices[3](store).status in ("created", "exists")
        upkeep.verify(load(store, Ref("shards", "x", 1)))
        if whole:
            break
    assert steps > 20


def test_gc_asks_once_for_each_name_and_version(file_store: Store) -> None:
    asked = []
    for names in (5, 10):
        for number in range(names):
            write(file_store, f"n{number}", pieces=pieces(1))
            write(file_store, f"n{number}", pieces=pieces(1), settings={"other": 1})
        counted = Counting(file_store)
        garbage(counted, older_than_s=-5)
        delete_garbage(counted, garbage(file_store, older_than_s=-5), older_than_s=-5)
        asked.append(sum(counted.requests.values()) + counted.listed)
    assert asked[1] < 2.2 * asked[0]


def test_a_listing_in_a_folder_opens_only_what_its_prefix_names(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a/b/c/1", "a/b/c/2", "a/b/d/3", "a/e/4", "f/5"):
        file_store.put(key, b"{}")
    opened = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: opened.append(str(folder)) or scandir(folder))
    assert sorted(item.key for item in file_store.list("a/b/c/")) == ["a/b/c/1", "a/b/c/2"]
    assert opened == [f"{file_store.url}/a/b/c"]
    assert sorted(item.key for item in file_store.list("a/b/c")) == ["a/b/c/1", "a/b/c/2"]
    assert [item.key for item in file_store.list("a/e/4")] == ["a/e/4"]
    assert list(file_store.list("g/h/")) == []
