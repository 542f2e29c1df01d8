"""Checkpoints on a shelf: the last two, found again only if they are whole."""

import logging
from pathlib import Path

import pytest
import torch

from photoz.artifacts import Destination, Draft, Store
from photoz.errors import BadFormat, BadInput
from photoz.train import TrainSettings
from photoz.train.checkpoints import Checkpoints, LocalShelf, Shelf, shelf_for
from photoz.train.state import Checkpoint, Progress


@pytest.fixture(params=["store", "folder"])
def shelf(request: pytest.FixtureRequest, file_store: Store, tmp_path: Path) -> Shelf:
    """A place for checkpoints: beside a model in the making, or a folder."""
    if request.param == "folder":
        return LocalShelf(tmp_path / "folder", "0123456789abcdef")
    return draft_of(file_store)


def draft_of(store: Store) -> Draft:
    return Draft.begin(Destination(store, "x"), kind="model", recipe=1, settings={})


def anything(data: bytes) -> None:
    assert data


def names(shelf: Shelf) -> list[str]:
    return shelf.states("training-")


def test_the_last_two_are_kept_and_the_newest_is_found(shelf: Shelf) -> None:
    kept = Checkpoints(shelf)
    for step in (9, 99, 100, 123_456_789):
        kept.save(step, b"state %d" % step)
    assert [name[:-20] for name in names(shelf)] == ["training-00000100", "training-123456789"]
    assert Checkpoints(shelf).newest(anything) == b"state 123456789"


def test_one_that_was_found_stays_until_two_newer_ones_are_in(shelf: Shelf) -> None:
    for step in (1, 2):
        Checkpoints(shelf).save(step, b"state %d" % step)
    again = Checkpoints(shelf)
    assert again.newest(anything) == b"state 2"
    again.save(3, b"state 3")
    assert [name[9:17] for name in names(shelf)] == ["00000002", "00000003"]


@pytest.mark.parametrize("damage", [b"", b"stat", b"state 2 and more", b"State 2"])
def test_a_damaged_newest_is_skipped_and_dropped_before_a_good_one(
    shelf: Shelf, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first = Checkpoints(shelf)
    first.save(1, b"state 1")
    first.save(20, b"state 2")
    newest = names(shelf)[-1]
    shelf.save_state(newest, damage)
    again = Checkpoints(shelf)
    with caplog.at_level(logging.WARNING):
        assert again.newest(anything) == b"state 1"
    (warning,) = caplog.messages
    assert newest in warning and "not those that were saved" in warning
    again.save(2, b"state two")
    assert [name[9:17] for name in names(shelf)] == ["00000001", "00000002"]


def test_what_is_none_of_ours_is_skipped(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    Checkpoints(shelf).save(5, b"state 5")
    shelf.save_state("training-latest.pt", b"whatever")

    def picky(data: bytes) -> None:
        raise BadFormat("the weights are those of another network")

    assert Checkpoints(shelf).newest(anything) == b"state 5"
    assert Checkpoints(shelf).newest(picky) is None
    assert "not a name that this version gives" in caplog.messages[0]
    assert "another network" in caplog.messages[-1]


def test_nothing_is_left_once_the_model_is_made(shelf: Shelf) -> None:
    kept = Checkpoints(shelf)
    kept.save(1, b"state")
    kept.clear()
    assert names(shelf) == []
    assert kept.newest(anything) is None


def test_forced_training_does_not_go_on_from_a_folders_old_checkpoint(file_store: Store, tmp_path: Path) -> None:
    draft = draft_of(file_store)
    Checkpoints(shelf_for(draft, str(tmp_path / "c"), anew=False)).save(1, b"old")
    assert Checkpoints(shelf_for(draft, str(tmp_path / "c"), anew=False)).newest(anything) == b"old"
    assert Checkpoints(shelf_for(draft, str(tmp_path / "c"), anew=True)).newest(anything) is None


def test_a_place_that_is_no_folder_is_named(file_store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"--checkpoints .*file: .*name a folder"):
        shelf_for(draft_of(file_store), str(tmp_path / "file"), anew=False)
    with pytest.raises(BadInput, match="--checkpoints 's3://bucket/x'"):
        TrainSettings(checkpoints="s3://bucket/x")
    with pytest.raises(BadInput, match="'often'"):
        TrainSettings(checkpoint_every="often")


def test_weights_of_another_network_are_no_checkpoint_of_this_one() -> None:
    network = torch.nn.Linear(3, 2)
    mine = Checkpoint(network.state_dict(), network.state_dict(), {}, {}, Progress())
    mine.check_fit(network)
    with pytest.raises(BadFormat, match="another network"):
        mine.check_fit(torch.nn.Linear(3, 3))
