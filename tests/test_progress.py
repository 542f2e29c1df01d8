"""How long the rest will take, also where a part was done before."""

import logging

import pytest

from photoz import progress


@pytest.fixture(autouse=True)
def every_step_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", -1.0)


def test_time_left_goes_by_what_this_run_has_done_and_not_by_what_it_found_done() -> None:
    with progress.stage("train", total=1000, unit="galaxies", before=900) as resumed:
        assert resumed.done == 900
        assert resumed.seconds_left(7.0) is None  # nothing is known yet
        resumed.advance(20)
        assert resumed.seconds_left(10.0) == 40.0  # 80 are left, at 2 a second
    with progress.stage("train", total=1000, unit="galaxies") as whole:
        whole.advance(200)
        assert whole.seconds_left(10.0) == 40.0
        whole.advance(800)
        assert whole.seconds_left(50.0) is None


def test_the_last_line_counts_what_was_done_in_its_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "photoz.progress")
    with progress.stage("train", total=1000, unit="galaxies", before=900) as resumed:
        resumed.advance(100)
    assert caplog.messages[-1].startswith("train: 100 galaxies in ")
    assert caplog.messages[0].startswith("train: 1000 of 1000 galaxies")


def test_a_bar_estimates_from_this_runs_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 1))
    monkeypatch.setattr(progress, "_show_bars", True)
    with progress.stage("train", total=1000, unit="galaxies", before=900) as resumed:
        assert resumed._bar is not None
        task = resumed._bar.tasks[0]
        task._get_time = lambda: float(next(clock))
        resumed._bar.get_time = task._get_time
        for _ in range(5):
            resumed.advance(2)
        assert task.completed == 910
        assert task.speed is not None and task.speed < 10
