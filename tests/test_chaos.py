"""A short, seeded run of the experiments behind docs/reliability.md."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.real


@pytest.mark.timeout(1200)
def test_killed_jobs_and_failing_services_lose_nothing() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--kills", "24", "--faults", "60", "--outages", "6", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    for experiment, least in (("kill", 15), ("passing fault", 60), ("lasting fault", 4)):
        found = re.search(rf"^{experiment}: (\d+) tried, (\d+) survived, data lost 0$", done.stdout, re.MULTILINE)
        assert found and int(found[1]) == int(found[2]) >= least, done.stdout
