"""Every fault that the embedded sky can inject, as both clients and their user meet it."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pyarrow as pa
import pytest
import urllib3

from photoz.errors import BadInput, ExitCode, PhotozError, TryAgain
from photoz.retry import Patience
from photoz.sky import SkyIdentity, sky_identity
from photoz.sky.faults import KINDS, parse_faults
from photoz.sky.population import build_population
from photoz.sky.server import EmbeddedSky
from photoz.sky.sql import SkyDatabase
from photoz.sky.workers import DrawingPool
from photoz.surveys.sdss import jpeg as cutouts
from photoz.surveys.sdss.jpeg import CutoutService, fetch_cutouts
from photoz.surveys.sdss.server import Server
from photoz.surveys.sdss.skyserver import SkyServer

pytestmark = pytest.mark.real

GALAXIES = 200
QUERY = "SELECT objID AS objid, ra, dec FROM PhotoObj WHERE mode = 1 AND type = 3 ORDER BY objID"
SCHEMA = pa.schema([("objid", pa.uint64()), ("ra", pa.float64()), ("dec", pa.float64())])
SQL_SAYS = {
    "429": "HTTP 429",
    "500": "HTTP 500",
    "503": "HTTP 503",
    "reset": "ProtocolError",
    "truncate": "no whole reply",
    "html200": "web page",
    "corrupt": "no text",
    "timeout": "ReadTimeout",
    "length": "ends in the middle of a line|rows came",
}
CUTOUT_SAYS = {
    "429": "http_429",
    "500": "http_500",
    "503": "http_503",
    "reset": "ProtocolError",
    "truncate": "ProtocolError|IncompleteRead",
    "html200": "not_an_image",
    "corrupt": "corrupt|not_an_image",
    "timeout": "ReadTimeoutError",
    "length": "corrupt",
}


@pytest.fixture(scope="module")
def sky() -> Iterator[EmbeddedSky]:
    """An embedded sky in this process, whose faults a test may set."""
    with closing(DrawingPool(1)) as pool:
        population = build_population(GALAXIES, 0)
        with closing(SkyDatabase(population)) as database:
            pool.begin(population, 0)
            with EmbeddedSky(("127.0.0.1", 0), SkyIdentity(GALAXIES, 0), database, pool, parse_faults("")) as server:
                thread = threading.Thread(target=server.serve_forever, args=(0.05,))
                thread.start()
                yield server
                server.shutdown()
                thread.join()


@pytest.fixture(autouse=True)
def quick_cutouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutouts, "BACKOFF", Patience(budget_s=0.0, longest_pause_s=0.02))
    monkeypatch.setattr(cutouts, "TIMEOUT", urllib3.Timeout(connect=5, read=4))


class Pauses:
    """The waits that a client makes, at a hundredth of their length."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        threading.Event().wait(seconds / 100)


def sql_client(sky: EmbeddedSky, pauses: Pauses, budget_s: float) -> SkyServer:
    about = Server(base_url=sky.url)
    patience = Patience(budget_s=budget_s, first_contact_s=budget_s, read_s=4.0, sleep=pauses)
    return SkyServer(about, patience=patience)


def some_cutouts(sky: EmbeddedSky, patience_s: float) -> list[bool]:
    service = CutoutService(base_url=sky.url, size_px=64, scale_arcsec_per_px=0.4, patience_s=patience_s)
    return [isinstance(found, bytes) for found in fetch_cutouts(service, [(180.0 + i, 20.0) for i in range(6)])]


def test_every_kind_is_tried_on_both_clients() -> None:
    assert {*SQL_SAYS, "slow", "403"} == {*CUTOUT_SAYS, "slow", "403"} == set(KINDS)


@pytest.mark.parametrize("kind", [*SQL_SAYS, "slow"])
def test_a_fault_that_passes_is_ridden_out(sky: EmbeddedSky, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sky, "faults", parse_faults(f"{kind}:0.4", seed=5))
    pauses = Pauses()
    client = sql_client(sky, pauses, budget_s=600)
    rows = [client.rows(f"{QUERY} -- {number}", SCHEMA, _galaxies(sky)).num_rows for number in range(3)]
    assert rows == [_galaxies(sky)] * 3
    assert some_cutouts(sky, 60) == [True] * 6


def _galaxies(sky: EmbeddedSky) -> int:
    return int(sky.database.select(QUERY).num_rows)


@pytest.mark.parametrize("kind", SQL_SAYS)
def test_a_fault_that_stays_ends_a_query_with_75_and_its_name(
    sky: EmbeddedSky, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sky, "faults", parse_faults(f"{kind}:1"))
    pauses = Pauses()
    with pytest.raises(TryAgain, match=SQL_SAYS[kind]) as failure:
        sql_client(sky, pauses, budget_s=6).rows(QUERY, SCHEMA, _galaxies(sky))
    assert failure.value.exit_code == ExitCode.TRY_AGAIN
    assert "asked" in str(failure.value) and len(pauses.seconds) == len(set(pauses.seconds)) > 0


@pytest.mark.parametrize("kind", CUTOUT_SAYS)
def test_a_fault_that_stays_ends_cutouts_with_75_and_its_name(
    sky: EmbeddedSky, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sky, "faults", parse_faults(f"{kind}:1"))
    monkeypatch.setattr(cutouts, "TIMEOUT", urllib3.Timeout(connect=5, read=0.5))
    with pytest.raises(TryAgain, match=CUTOUT_SAYS[kind]):
        some_cutouts(sky, 0.3)


def test_a_refusal_stops_both_clients_at_once(sky: EmbeddedSky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sky, "faults", parse_faults("403:1"))
    pauses = Pauses()
    with pytest.raises(BadInput, match=r"HTTP 403: it refuses to answer this machine; check --survey-url"):
        sql_client(sky, pauses, budget_s=600).rows(QUERY, SCHEMA, GALAXIES)
    assert pauses.seconds == []
    with pytest.raises(BadInput, match=r"status 403 .*: it refuses to answer this machine; check --survey-url"):
        some_cutouts(sky, 600)
    with pytest.raises(BadInput, match=r"status 403, it refuses to answer; check the address"):
        sky_identity(sky.url)


def asked_in_vain(url: str, monkeypatch: pytest.MonkeyPatch) -> list[PhotozError]:
    """What both clients end with where no request comes through."""
    about = Server(base_url=url)
    client = SkyServer(about, patience=Patience(sleep=lambda s: None, budget_s=0, connect_s=0.5))
    monkeypatch.setattr(cutouts, "TIMEOUT", urllib3.Timeout(connect=0.5, read=0.5))
    service = CutoutService(base_url=url, size_px=64, scale_arcsec_per_px=0.4, patience_s=0.1)
    errors = []
    for ask in (
        lambda: client.count("SELECT COUNT(*) AS n FROM SpecObj"),
        lambda: list(fetch_cutouts(service, [(180.0, 20.0)])),
    ):
        with pytest.raises(PhotozError) as failure:
            ask()
        errors.append(failure.value)
    return errors


def test_a_name_that_nobody_knows_is_bad_input_and_says_where_to_run_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://sky.invalid"
    with pytest.raises(TryAgain, match=r"NameResolutionError\); check the address"):
        sky_identity(nowhere)  # a server of our own may yet be starting
    for error in asked_in_vain(nowhere, monkeypatch):
        assert error.exit_code == ExitCode.BAD_INPUT
        assert str(error).startswith("sky.invalid: no address is known here for its name")
        assert "login node" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_nobody_knows_is_named_instead_of_the_survey(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", "http://me:hush@nohost.invalid:3128")
    for error in asked_in_vain(f"{scheme}://sky.invalid", monkeypatch):
        assert error.exit_code == ExitCode.BAD_INPUT
        assert str(error).startswith(
            "sky.invalid: can't be reached through the proxy nohost.invalid:3128: no address is"
        )
        assert f"or set {scheme}_proxy to your site's proxy" in str(error) and "hush" not in str(error)


@pytest.mark.parametrize("fault", ["refuses", "says nothing"])
def test_a_server_that_is_not_listening_is_transient_until_the_job_was_started_again_twice(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        port = listener.getsockname()[1]
        if fault == "refuses":
            listener.close()
        else:  # a full queue: the kernel drops what else wants to connect, as a firewall does
            for _ in range(4):
                other = waiting.enter_context(socket.socket())
                other.setblocking(False)
                other.connect_ex(("127.0.0.1", port))
        url = f"http://127.0.0.1:{port}"
        assert [error.exit_code for error in asked_in_vain(url, monkeypatch)] == [ExitCode.TRY_AGAIN] * 2
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
        for error in asked_in_vain(url, monkeypatch):
            assert error.exit_code == ExitCode.BAD_INPUT
            assert "not after 2 restarts of the job either" in str(error)


def test_a_survey_that_has_answered_once_is_transient_whatever_comes_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "5")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def refuse_once() -> None:
            with listener.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            listener.close()

        server = threading.Thread(target=refuse_once)
        server.start()
        about = Server(base_url=f"http://127.0.0.1:{port}")
        client = SkyServer(about, patience=Patience(budget_s=3.0))
        with pytest.raises(TryAgain, match="NewConnectionError"):
            client.count("SELECT COUNT(*) AS n FROM SpecObj")
        server.join()


OFFLINE = """
import sys
from dataclasses import replace
from photoz.surveys.sdss import skyserver
skyserver.PATIENCE = replace(skyserver.PATIENCE, first_contact_s=2.0)
from jobs.__main__ import main
sys.argv = ["photoz-job", *sys.argv[1:]]
main()
"""


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
@pytest.mark.parametrize(
    ("address", "why"),
    [("http://192.0.2.1", "there is no way to it from here"), ("http://sky.example.org", "no address is known here")],
)
def test_a_host_without_network_ends_the_job_with_2_and_one_line(tmp_path: Path, address: str, why: str) -> None:
    flags = ["--survey", "sdss-dr17", "--survey-url", address, "--limit", "50", "--store", str(tmp_path)]
    offline = ["unshare", "--net", sys.executable, "-c", OFFLINE, "catalog", *flags]
    done = subprocess.run(offline, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == ExitCode.BAD_INPUT, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("photoz-job: error: ")]
    assert why in line and "login node" in line


def test_the_help_and_the_design_note_name_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.test_cli import photoz_job

    photoz_job("sky", "serve", "--help")
    shown = capsys.readouterr().out
    note = (Path(__file__).parents[1] / "docs" / "design" / "embedded-sky.md").read_text()
    (paragraph,) = [part for part in note.split("\n\n") if part.startswith("**Faults**")]
    for kind in KINDS:
        assert kind in shown and kind in paragraph
