import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pytest
from astroquery.sdss import conf
from hypothesis import given, settings
from hypothesis import strategies as st

from photoz.errors import BadInput, ExitCode, PhotozError, TryAgain
from photoz.retry import Patience
from photoz.surveys import survey_named
from photoz.surveys.sdss.server import Server
from photoz.surveys.sdss.skyserver import COUNT_SCHEMA, SkyServer
from photoz.surveys.sdss.sql_reply import RefusedQuery, TransientReply, parse_reply
from photoz.surveys.sdss.survey import SdssServer

SCHEMA = pa.schema([("objid", pa.uint64()), ("specobjid", pa.uint64()), ("z_spec", pa.float64())])
GOOD = "#Table1\nobjid,specobjid,z_spec\n1237648720693755918,9263495804394848257,0.0625\n1237648720693755919,1,0.1\n"
EXPECTED = {
    "objid": [1237648720693755918, 1237648720693755919],
    "specobjid": [9263495804394848257, 1],
    "z_spec": [0.0625, 0.1],
}
SYNTAX_ERROR = "#Table1\nerror_message\nIncorrect syntax near the keyword 'FROM'.\n"
TOO_MANY = "ERROR: Maximum 60 queries allowed per minute. Rejected query: SELECT objid\n"
ERROR_PAGE = "<html><head>\n<title>Skyserver Error</title>\n</head><body><h2>An error occured</h2><br></body></html>"
TIMEOUT = "#Table1\nerror_message\nExecution Timeout Expired. The timeout period elapsed.\n"
MAINTENANCE = "<!DOCTYPE html><html><body><h1>SkyServer is under maintenance</h1></body></html>"


@dataclass
class Reply:
    """What the server sends: with the true length, another one (`missing` bytes are never sent), or none at all."""

    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    announced: bool = True


class Answering(ThreadingHTTPServer):
    """Gives the replies in turn, the last one again and again, and notes what was asked."""

    def __init__(self, replies: list[Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies, self.asked = replies, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        reply = self.server.replies[min(len(self.server.asked), len(self.server.replies)) - 1]
        body = reply.body.encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.announced:
            self.send_header("Content-Length", str(len(body) + reply.missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(*replies: Reply) -> Iterator[Answering]:
    with Answering(list(replies)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.time, self.slept = 0.0, []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def patience(self, budget_s: float = 100.0) -> Patience:
        return Patience(
            budget_s=budget_s,
            first_contact_s=60.0,
            longest_pause_s=60.0,
            sleep=self.sleep,
            now=lambda: self.time,
            draw=lambda: 0.5,
        )


def client(server: Answering, patience: Patience | None = None, **survey: float) -> SkyServer:
    about = Server(base_url=server.url, **survey)
    return SkyServer(about, patience=patience or Clock().patience())


def test_a_query_goes_through_astroquery_and_ids_stay_exact() -> None:
    with answering(Reply(GOOD)) as server:
        rows = client(server).rows("SELECT objid\nFROM PhotoObj", SCHEMA, expected=2)
    assert rows.to_pydict() == EXPECTED
    asked = urlsplit(server.asked[0])
    assert asked.path == "/dr17/en/tools/search/x_results.aspx"
    query = parse_qs(asked.query)
    assert query["cmd"][0].split() == ["SELECT", "objid", "FROM", "PhotoObj"]
    assert query["format"] == ["csv"] and query["searchtool"] == ["SQL"]


@pytest.mark.parametrize(
    "bad",
    [
        Reply(GOOD[:-9], announced=False),  # closed in the middle of a line
        Reply(GOOD[:-30], announced=False),
        Reply(GOOD[: GOOD.rindex("\n", 0, -1) + 1], announced=False),  # closed after a line: only COUNT(*) tells
        Reply("#Table1\n", announced=False),
        Reply(GOOD[:60], missing=100),  # closed before the announced end
        Reply("", announced=True),
        Reply("#Table1\nobjid,specobjid,z_spec\n"),
        Reply(GOOD.replace("0.0625", "0.06,25")),
        Reply(GOOD.replace("1237648720693755918", "1.24E+18")),
        Reply(MAINTENANCE),
        Reply(MAINTENANCE, status=503),
        Reply(TOO_MANY),
        Reply(TOO_MANY, status=429),
        Reply("oops", status=500),
        Reply("", status=502),
        Reply('{"ErrorCode": 500, "ErrorType": "InternalServerError"}', status=500),
        Reply(ERROR_PAGE),
    ],
)
def test_replies_that_are_not_whole_are_asked_for_again(bad: Reply) -> None:
    clock = Clock()
    with answering(bad, bad, Reply(GOOD)) as server:
        rows = client(server, clock.patience()).rows("SELECT", SCHEMA, expected=2)
    assert rows.to_pydict() == EXPECTED
    assert len(server.asked) == 3 and len(clock.slept) == 2
    assert clock.slept[1] > clock.slept[0] > 0


@pytest.mark.parametrize(
    ("bad", "kind", "said"),
    [
        (Reply(SYNTAX_ERROR), PhotozError, "Incorrect syntax near"),
        (Reply(SYNTAX_ERROR, status=500), PhotozError, "Incorrect syntax near"),
        (Reply('[{"error_message": "Invalid column name"}]', status=400), PhotozError, "Invalid column name"),
        (Reply("<html><body>SQL error: Invalid object name 'x'</body></html>"), PhotozError, "Invalid object name"),
        (Reply("#Table1\nERROR: something new\n"), PhotozError, "the server refuses the query"),
        (Reply("not here", status=404), BadInput, "HTTP 404; expected a SkyServer: check --survey-url"),
        (Reply("no", status=403), BadInput, "HTTP 403"),
    ],
)
def test_what_cannot_get_better_is_not_asked_again(bad: Reply, kind: type[PhotozError], said: str) -> None:
    with answering(bad) as server, pytest.raises(kind) as refused:
        client(server).rows("SELECT", SCHEMA, expected=2)
    assert said in str(refused.value)
    assert not isinstance(refused.value, TryAgain)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [200, 500])
def test_a_query_that_takes_too_long_is_not_asked_again_at_once(status: int) -> None:
    with answering(Reply(TIMEOUT, status=status)) as server, pytest.raises(TryAgain, match="a smaller --region"):
        client(server).rows("SELECT", SCHEMA, expected=2)
    assert len(server.asked) == 1


def test_a_server_that_names_a_time_is_given_it() -> None:
    clock = Clock()
    with answering(Reply("", status=429, headers={"Retry-After": "7"}), Reply(GOOD)) as server:
        client(server, clock.patience()).rows("SELECT", SCHEMA, expected=2)
    assert clock.slept == [pytest.approx(7.5)]


def test_patience_ends_with_try_again_within_the_budget() -> None:
    clock = Clock()
    with answering(Reply("", status=503)) as server, pytest.raises(TryAgain) as failure:
        client(server, clock.patience(budget_s=30)).rows("SELECT", SCHEMA, expected=2)
    assert failure.value.exit_code == ExitCode.TRY_AGAIN == 75
    assert clock.time <= 30
    assert f"HTTP 503; asked {len(server.asked)} times" in str(failure.value)


def test_a_wait_beyond_the_budget_is_not_begun() -> None:
    clock = Clock()
    reply = Reply("", status=429, headers={"Retry-After": "3600"})
    with answering(reply) as server, pytest.raises(TryAgain):
        client(server, clock.patience()).rows("SELECT", SCHEMA, expected=2)
    assert clock.slept == [] and len(server.asked) == 1


def test_a_server_that_is_not_there_is_transient() -> None:
    with answering(Reply(GOOD)) as server:
        pass
    clock = Clock()
    with pytest.raises(TryAgain, match=r"no whole reply \(NewConnectionError\)"):
        client(server, clock.patience(1000)).rows("SELECT", SCHEMA, expected=2)
    assert clock.time <= 60  # one that has never answered is not waited for as long as one that is busy


def test_queries_keep_to_the_surveys_rate_shared_among_slices() -> None:
    clock = Clock()
    with answering(Reply("n\n5\n")) as server:
        about = Server(base_url=server.url, queries_per_minute=60)
        one_of_three = SkyServer(about, sharers=3, patience=clock.patience())
        assert [one_of_three.count("SELECT") for _ in range(3)] == [5, 5, 5]
    assert clock.slept == [pytest.approx(3.0), pytest.approx(3.0)]


def test_the_real_survey_is_asked_politely() -> None:
    sdss = survey_named("sdss-dr17")
    with sdss.open(None) as opened:
        assert isinstance(opened, SdssServer)
        assert opened.server.queries_per_minute == 60
        assert opened.base_url == "https://skyserver.sdss.org"
        assert not sdss.simulated


def test_two_surveys_asked_at_once_are_not_mixed_up_and_astroquery_is_left_as_it_was() -> None:
    before = conf.skyserver_baseurl
    counts: dict[int, list[int]] = {}

    def ask(number: int, server: Answering) -> None:
        asked = client(server)
        counts[number] = [asked.count("SELECT") for _ in range(10)]

    with answering(Reply("n\n1\n")) as first, answering(Reply("n\n2\n")) as second:
        threads = [threading.Thread(target=ask, args=pair) for pair in ((1, first), (2, second))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == {1: [1] * 10, 2: [2] * 10}
    assert conf.skyserver_baseurl == before


def test_a_reply_at_the_row_limit_is_refused() -> None:
    with pytest.raises(RefusedQuery, match="2 rows, the server's limit"):
        parse_reply(GOOD, SCHEMA, row_limit=2)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1))
def test_a_reply_cut_anywhere_is_never_taken_for_whole(length: int) -> None:
    try:
        rows = parse_reply(GOOD[:length], SCHEMA, row_limit=1000)
    except (TransientReply, RefusedQuery):
        return
    assert rows.num_rows < 2  # cut after a line: the count tells


def test_recorded_replies_of_skyserver_parse(shared_data: Path) -> None:
    recorded = shared_data / "skyserver_recorded"
    position = [("ra", pa.float64()), ("dec", pa.float64()), ("objid", pa.uint64())]
    field_of = [(name, pa.int32()) for name in ("run", "rerun", "camcol", "field")]
    images = parse_reply((recorded / "astroquery_xid_im.txt").read_text(), pa.schema(position + field_of), 1000)
    assert images["objid"][0].as_py() == 1237653651835781245 and images.num_rows > 15
    spectrum = [
        ("z", pa.float64()),
        ("plate", pa.int32()),
        ("mjd", pa.int32()),
        ("fiberID", pa.int32()),
        ("specobjid", pa.uint64()),
        ("run2d", pa.int32()),
        ("instrument", pa.string()),
    ]
    spectra = parse_reply(
        (recorded / "astroquery_xid_sp.txt").read_text().rstrip("\n") + "\n",
        pa.schema(position + field_of + spectrum),
        1000,
    )
    assert spectra["specobjid"].to_pylist() == [845594848269461504]
    magnitudes = pa.schema([(name, pa.float64()) for name in ("u", "g", "r", "i", "z", "redshift")])
    crossed = parse_reply((recorded / "Skyserver_CrossID_5000.csv").read_text(), magnitudes, 500_000)
    assert crossed.num_rows == 5000


def test_a_count_is_one_number() -> None:
    assert COUNT_SCHEMA.names == ["n"]
    with answering(Reply("#Table1\nn\n9613\n")) as server:
        assert client(server).count("SELECT COUNT(*) AS n FROM SpecObj") == 9613


def test_a_reply_without_an_end_is_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("photoz.surveys.sdss.skyserver.MOST_BYTES", 1000)
    with (
        answering(Reply("n\n" + "5\n" * 1000)) as server,
        pytest.raises(TryAgain, match="ContentDecodingError"),
    ):
        client(server, Clock().patience(budget_s=3)).count("SELECT")
