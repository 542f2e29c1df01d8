"""A short, seeded run of the experiment of docs/reliability.md."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.real

SHORT = {"kills": 24, "faults": 60, "outages": 6}


@pytest.mark.timeout(1200)
def test_killed_jobs_and_broken_services_lose_nothing() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seed", "7"]
    for name, number in SHORT.items():
        command += [f"--{name}", str(number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    for kind, number in zip(("kill", "passing fault", "lasting fault"), SHORT.values(), strict=True):
        found = re.search(rf"^{kind}: (\d+) tried, (\d+) survived, data lost 0$", done.stdout, re.MULTILINE)
        assert found and int(found[1]) == int(found[2]) >= number, done.stdout
