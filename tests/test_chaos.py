"""A short, seeded run of the kills of docs/reliability.md; faults are tried in test_s3_faults and test_sky_faults."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.real


@pytest.mark.timeout(1200)
def test_killed_jobs_lose_nothing() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--kills", "24", "--faults", "0", "--outages", "0", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = re.search(r"^kill: (\d+) tried, (\d+) survived, data lost 0$", done.stdout, re.MULTILINE)
    assert found and int(found[1]) == int(found[2]) >= 24, done.stdout
