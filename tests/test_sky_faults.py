"""Every fault that the embedded sky can inject, as both clients and their user meet it."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
import urllib3

from photoz.errors import BadInput, ExitCode, TryAgain
from photoz.patience import Patience
from photoz.survey import Survey, cutouts
from photoz.survey.cutouts import CutoutService, fetch_cutouts
from photoz.survey.embedded import SkyIdentity, sky_identity
from photoz.survey.embedded.faults import KINDS, parse_faults
from photoz.survey.embedded.population import build_population
from photoz.survey.embedded.server import EmbeddedSky
from photoz.survey.embedded.sql import SkyDatabase
from photoz.survey.embedded.workers import DrawingPool
from photoz.survey.skyserver import SkyServer

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
    monkeypatch.setattr(cutouts, "BACKOFF_S", 0.01)
    monkeypatch.setattr(cutouts, "BACKOFF_MAX_S", 0.1)
    monkeypatch.setattr(cutouts, "TIMEOUT", urllib3.Timeout(connect=5, read=4))


class Pauses:
    """The waits that a client makes, at a hundredth of their length."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        threading.Event().wait(seconds / 100)


def sql_client(sky: EmbeddedSky, pauses: Pauses, budget_s: float) -> SkyServer:
    about = Survey(name="embedded", base_url=sky.url, simulated=True)
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


def test_a_name_that_nobody_knows_is_transient_and_named() -> None:
    nowhere = "http://sky.invalid"
    with pytest.raises(TryAgain, match=r"NameResolutionError\); check the address"):
        sky_identity(nowhere)
    client = SkyServer(
        Survey(name="embedded", base_url=nowhere, simulated=True), patience=Patience(sleep=lambda s: None, budget_s=0)
    )
    with pytest.raises(TryAgain, match=r"no whole reply \(NameResolutionError\)"):
        client.count("SELECT COUNT(*) AS n FROM SpecObj")
    service = CutoutService(base_url=nowhere, size_px=64, scale_arcsec_per_px=0.4, patience_s=0.1)
    with pytest.raises(TryAgain, match="NameResolutionError"):
        list(fetch_cutouts(service, [(180.0, 20.0)]))


def test_the_help_and_the_design_note_name_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.test_cli import photoz_job

    photoz_job("sky", "serve", "--help")
    shown = capsys.readouterr().out
    note = (Path(__file__).parents[1] / "docs" / "design" / "embedded-sky.md").read_text()
    (paragraph,) = [part for part in note.split("\n\n") if part.startswith("**Faults**")]
    for kind in KINDS:
        assert kind in shown and kind in paragraph
