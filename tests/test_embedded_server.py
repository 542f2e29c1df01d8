import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import simplejpeg
from PIL import Image

from photoz.errors import BadInput, TryAgain
from photoz.sky import open_embedded_sky, serve, sky_identity

pytestmark = pytest.mark.real

CUTOUT = "/dr17/SkyServerWS/ImgCutout/getjpeg"
SQL = "/dr17/SkyServerWS/SearchTools/SqlSearch"
SEARCH_PAGE = "/dr17/en/tools/search/x_results.aspx"
HERE = {"ra": 182.4166, "dec": 24.7814, "scale": 0.396127, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with open_embedded_sky(galaxies=1000) as base_url:
        yield base_url


def processes_of(session_leader: int) -> list[int]:
    """Processes descended from one, itself included."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            state, parent = stat.rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    family = {session_leader} & parents.keys()
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(family)


def gone(pids: list[int], within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if Path(f"/proc/{pid}").exists() and not _is_zombie(pid)]
        if not alive:
            return True
        time.sleep(0.1)
    return False


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_cutout_comes_back_as_jpeg_and_says_that_it_is_simulated(url: str) -> None:
    reply = requests.get(url + CUTOUT, params=HERE, timeout=30)
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "image/jpeg"
    assert "simulated" in reply.headers["X-Simulated"]
    assert Image.open(io.BytesIO(reply.content)).size == (64, 64)
    assert "Simulated" in requests.get(url, timeout=30).text


def test_concurrent_requests_get_the_bytes_that_single_ones_get(url: str) -> None:
    wanted = [HERE | {"ra": 150 + number, "dec": 20.0} for number in range(24)]
    with requests.Session() as session:
        one_by_one = [session.get(url + CUTOUT, params=each, timeout=60).content for each in wanted]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda each: requests.get(url + CUTOUT, params=each, timeout=60).content, wanted))
    assert one_by_one == at_once
    assert len(set(at_once)) == len(wanted)


def test_a_connection_serves_many_requests(url: str) -> None:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        for _ in range(3):
            connection.sendall(f"GET {CUTOUT}?ra=10&dec=10&width=64&height=64 HTTP/1.1\r\nHost: sky\r\n\r\n".encode())
            reply = connection.makefile("rb")
            headers = list(iter(reply.readline, b"\r\n"))
            length = next(int(line.split()[1]) for line in headers if line.lower().startswith(b"content-length"))
            assert len(reply.read(length)) == length


def test_astroquery_reads_the_reply_with_ids_intact(url: str) -> None:
    from astroquery.sdss import SDSS, conf

    query = "SELECT TOP 5 p.objid, s.specobjid, p.ra, s.z FROM SpecObj s JOIN PhotoObj p ON s.bestObjID = p.objID \
             WHERE s.plate >= 8192 ORDER BY s.specobjid"
    with warnings.catch_warnings(), conf.set_temp("skyserver_baseurl", url):
        warnings.simplefilter("ignore")  # astropy says that the ids don't fit int64
        table = SDSS.query_sql(query, cache=False)
    assert table["specobjid"].dtype == np.uint64
    assert (table["specobjid"] >> np.uint64(50)).min() >= 8192


def test_a_query_that_cant_run_is_answered_with_status_200_and_an_error_message(url: str) -> None:
    for path in (SQL, SEARCH_PAGE):
        parameters = {"cmd": "SELECT foo FROM SpecObj", "format": "csv", "searchtool": "SQL"}
        reply = requests.get(url + path, params=parameters, timeout=30)
        assert reply.status_code == 200
        assert reply.text.splitlines()[:2] == ["#Table1", "error_message"]
        assert "Invalid column name 'foo'" in reply.text


def test_a_missing_query_is_an_html_page_with_status_200_or_json_with_status_400(url: str) -> None:
    page = requests.get(url + SEARCH_PAGE, params={"format": "csv", "searchtool": "SQL"}, timeout=30)
    assert (page.status_code, "Skyserver Error" in page.text) == (200, True)
    service = requests.get(url + SQL, params={"format": "csv"}, timeout=30)
    assert (service.status_code, service.json()["ErrorCode"]) == (400, 400)


def test_bad_parameters_and_unknown_paths_are_refused(url: str) -> None:
    assert requests.get(url + CUTOUT, params={"ra": "x", "dec": 0}, timeout=30).status_code == 400
    assert requests.get(url + "/dr17/nothing", timeout=30).status_code == 404
    assert requests.put(url + CUTOUT, timeout=30).status_code == 501


def test_queries_may_be_posted_as_a_form(url: str) -> None:
    reply = requests.post(url + SQL, data={"cmd": "SELECT COUNT(*) FROM SpecObj", "format": "csv"}, timeout=30)
    assert reply.text.splitlines()[1] == "Column1"


def test_a_client_that_goes_away_does_no_harm(url: str) -> None:
    address = urlsplit(url)
    for _ in range(10):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(f"GET {CUTOUT}?ra=10&dec=10&width=900&height=900 HTTP/1.1\r\nHost: sky\r\n\r\n".encode())
    assert requests.get(url + CUTOUT, params=HERE, timeout=60).status_code == 200


def test_identity_tells_which_sky_it_is(url: str) -> None:
    assert sky_identity(url) == sky_identity() | {"galaxies": 1000}
    with pytest.raises(TryAgain, match="photoz-job sky serve"):
        sky_identity("http://127.0.0.1:9")


def test_every_fault_can_be_seen_from_a_client() -> None:
    spec = "429:0.2,500:0.1,503:0.1,reset:0.1,truncate:0.1,html200:0.1,corrupt:0.1"
    seen = set()
    with open_embedded_sky(galaxies=200, faults=spec) as base_url:
        for number in range(60):
            parameters = HERE | {"ra": 100 + number}
            try:
                reply = requests.get(base_url + CUTOUT, params=parameters, timeout=30)
            except requests.exceptions.ChunkedEncodingError:
                seen.add("truncate")
                continue
            except requests.exceptions.ConnectionError:
                seen.add("reset")
                continue
            if reply.status_code == 429:
                assert reply.headers["Retry-After"] == "1"
            if reply.status_code != 200:
                seen.add(str(reply.status_code))
            elif reply.headers["Content-Type"].startswith("text/html"):
                seen.add("html200")
            elif not _decodes(reply.content):
                seen.add("corrupt")
    assert seen >= {"429", "500", "503", "reset", "truncate", "html200", "corrupt"}


def _decodes(jpeg: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(jpeg)
    except ValueError:
        return False
    return True


def test_nothing_is_left_running_after_the_block() -> None:
    before = processes_of(os.getpid())
    with open_embedded_sky(galaxies=200) as base_url:
        family = [pid for pid in processes_of(os.getpid()) if pid not in before]
        assert len(family) >= 2
        assert requests.get(base_url, timeout=30).status_code == 200
    assert gone(family)


def test_a_killed_parent_takes_the_server_and_its_workers_along() -> None:
    program = (
        "import time\nfrom photoz.sky import open_embedded_sky\n"
        "with open_embedded_sky(galaxies=200) as url:\n    print(url, flush=True)\n    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline().startswith(b"http://127.0.0.1:")
    family = processes_of(parent.pid)
    assert len(family) >= 3
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(family)


def test_signals_to_the_whole_group_leave_a_jobs_own_sky_running() -> None:
    program = (
        "import signal, sys, requests\nfrom photoz.sky import open_embedded_sky\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "with open_embedded_sky(galaxies=200) as url:\n    print('ready', flush=True)\n    sys.stdin.readline()\n"
        f"    print(requests.get(url + '{CUTOUT}?ra=1&dec=1').status_code, flush=True)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None and parent.stdin is not None
    assert parent.stdout.readline() == b"ready\n"
    os.killpg(parent.pid, signal.SIGTERM)
    answer, _ = parent.communicate(b"\n", timeout=60)
    assert answer == b"200\n"


def test_sky_serve_prints_its_address_and_stops_on_sigterm() -> None:
    program = "from photoz.sky import serve\nserve(port=0, galaxies=200)"
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert server.stdout is not None
    ready = json.loads(server.stdout.readline())
    assert ready["simulated"] is True
    assert requests.get(ready["url"] + CUTOUT, params=HERE, timeout=30).status_code == 200
    family = processes_of(server.pid)
    server.terminate()
    assert server.wait(timeout=20) == 0
    server.stdout.close()
    assert gone(family)


def test_a_worker_that_dies_is_replaced() -> None:
    with open_embedded_sky(galaxies=200) as base_url:
        assert requests.get(base_url + CUTOUT, params=HERE, timeout=60).status_code == 200
        commands = {
            pid: Path(f"/proc/{pid}/cmdline").read_bytes()
            for pid in processes_of(os.getpid())
            if Path(f"/proc/{pid}/cmdline").exists()
        }
        for pid, command in commands.items():
            if b"embedded.workers" in command:
                os.kill(pid, signal.SIGKILL)
        statuses = {
            requests.get(base_url + CUTOUT, params=HERE | {"ra": 40 + n}, timeout=60).status_code for n in range(12)
        }
    assert statuses == {200}


def test_a_taken_port_is_refused_before_the_sky_is_built() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        started = time.monotonic()
        with pytest.raises(BadInput, match=r"can't listen on 127\.0\.0\.1"):
            serve(port=taken.getsockname()[1])
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"galaxies": 3}, "--galaxies 3"), ({"seed": -1}, "--seed -1"), ({"faults": "tired:0.1"}, "--faults tired")],
)
def test_bad_settings_are_refused_before_a_server_starts(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint), open_embedded_sky(**settings):  # type: ignore[arg-type]
        pass


def test_more_galaxies_than_the_real_ones_are_moved_ones_of_the_same_kind() -> None:
    with open_embedded_sky(galaxies=12_000) as base_url:
        query = "SELECT COUNT(*) AS n, AVG(z) AS z FROM SpecObj WHERE class = 'GALAXY' AND zWarning = 0"
        reply = requests.get(base_url + SQL, params={"cmd": query, "format": "json"}, timeout=60)
    row = reply.json()[0]["Rows"][0]
    assert row["n"] == 12_000
    assert row["z"] == pytest.approx(0.11, abs=0.01)
