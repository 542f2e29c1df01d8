"""Further processes of a job: what they report, and how they and the job end together."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from photoz import processes, runtime
from photoz.errors import BadFormat, TryAgain

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[1]


def count(numbers: list[int], report: Callable[[int], None]) -> None:
    for number in numbers:
        report(number)


def fail(error: Exception, report: Callable[[int], None]) -> None:
    report(os.getpid())
    raise error


def wait_for_a_stop(report: Callable[[int], None]) -> None:
    report(os.getpid())
    while True:
        runtime.check_stop()
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_all_reports_come_those_of_one_process_in_order() -> None:
    found = list(processes.reports([partial(count, [1, 2, 3]), partial(count, [10, 20])]))
    assert sorted(found) == [1, 2, 3, 10, 20]
    assert [number for number in found if number < 10] == [1, 2, 3]
    assert not multiprocessing.active_children()


def test_an_error_is_raised_here_and_the_others_are_stopped() -> None:
    found = []
    with pytest.raises(BadFormat, match=r"^the third galaxy$"):
        for pid in processes.reports([wait_for_a_stop, partial(fail, BadFormat("the third galaxy"))]):
            found.append(pid)
    assert found and all(map(gone, found))


def test_a_bug_comes_with_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(processes.reports([partial(fail, ZeroDivisionError("by zero"))]))
    assert "in fail" in "".join(caught.value.__notes__)


def test_one_that_is_killed_is_a_failure_that_passes() -> None:
    with pytest.raises(TryAgain, match="exit code -9"):
        for pid in processes.reports([wait_for_a_stop, wait_for_a_stop]):
            os.kill(pid, signal.SIGKILL)
    assert not multiprocessing.active_children()


def test_a_stop_ends_all_of_them_with_the_jobs_exit_code() -> None:
    script = (
        "import sys\n"
        "from photoz import processes, runtime\n"
        "from photoz.errors import Preempted\n"
        "from tests.test_processes import wait_for_a_stop\n"
        "if __name__ == '__main__':\n"
        "    runtime.install_stop_handlers()\n"
        "    try:\n"
        "        for pid in processes.reports([wait_for_a_stop, wait_for_a_stop]):\n"
        "            print(pid, flush=True)\n"
        "    except Preempted as stop:\n"
        "        sys.exit(int(stop.exit_code))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        found = [int(job.stdout.readline()) for _ in range(2)]
        job.send_signal(signal.SIGTERM)
        assert job.wait(30) == 85
    assert all(map(gone, found))


def test_none_outlives_the_one_that_started_it() -> None:
    script = (
        "from photoz import processes\n"
        "from tests.test_processes import wait_for_a_stop\n"
        "if __name__ == '__main__':\n"
        "    for pid in processes.reports([wait_for_a_stop]):\n"
        "        print(pid, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        pid = int(job.stdout.readline())
        job.kill()
    until = time.monotonic() + 60
    while not gone(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(pid)
