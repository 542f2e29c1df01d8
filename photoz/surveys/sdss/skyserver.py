"""SkyServer's SQL through astroquery: paced, retried where that can help, and every reply checked to be whole."""

import logging
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import pyarrow as pa
import requests
from astroquery.sdss import SDSSClass, conf

import photoz
from photoz.errors import BadInput, PhotozError, TryAgain
from photoz.ordered import in_order
from photoz.retry import TRANSIENT_STATUSES, Attempts, Patience, retry_after_s
from photoz.surveys.reach import unreachable, why_unreachable
from photoz.surveys.sdss.server import Server
from photoz.surveys.sdss.sql_reply import RefusedQuery, SlowQuery, TransientReply, parse_reply, refuse_error

log = logging.getLogger("photoz.catalog")

ROW_LIMIT = 500_000  # documented for SkyServer
MOST_BYTES = 2**29  # a kilobyte a row
# The server's own limit on a query is 600 s.
PATIENCE = Patience(budget_s=600.0, first_contact_s=60.0, longest_pause_s=60.0, connect_s=15.0, read_s=660.0)
COUNT_SCHEMA = pa.schema([("n", pa.int64())])

# Worth asking again: the network, or a server that says so. Nothing else is.
TRANSIENT_ERRORS = (
    requests.exceptions.ConnectionError,  # refused, reset, no name; also a connect timeout
    requests.exceptions.ReadTimeout,
    requests.exceptions.ChunkedEncodingError,  # closed before the announced end
    requests.exceptions.ContentDecodingError,
)

# astroquery keeps the server's address in a module-wide setting, so one query at a time in this process.
_astroquery = threading.Lock()


class _Busy(Exception):
    """A reply worth asking for again, after `retry_after_s` if the server named a time.

    `unreachable` says why there was no connection, where that won't change.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None, unreachable: str | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s, self.unreachable = retry_after_s, unreachable


class SkyServer:
    """Answers to SQL from one SkyServer. `sharers` processes keep to its rate limit together."""

    def __init__(self, server: Server, sharers: int = 1, patience: Patience | None = None) -> None:
        self.server = server
        self._patience = patience or PATIENCE
        rate = server.queries_per_minute
        self._spacing_s = 60.0 / rate * sharers if rate else 0.0
        self._next_at = 0.0
        self._answered = False
        self._sdss = SDSSClass()
        session: requests.Session = self._sdss._session
        session.headers["User-Agent"] = f"photoz/{photoz.__version__} {session.headers['User-Agent']!s}"
        if urlsplit(server.base_url).hostname in ("127.0.0.1", "localhost", "::1"):
            session.trust_env = False  # a proxy can't reach a server inside this machine
        session.hooks["response"].append(_read_bounded)

    def count(self, sql: str) -> int:
        """The number that a `SELECT COUNT(*) AS n …` gives."""
        return int(self._ask(sql, COUNT_SCHEMA, _one_row)["n"][0].as_py())

    def rows(self, sql: str, schema: pa.Schema, expected: int) -> pa.Table:
        """The rows of a query that COUNT(*) says has `expected` of them.

        Raises TryAgain if no whole reply comes within the budget, BadInput if there is no way to the server from here,
        PhotozError if it refuses the query.
        """

        def whole(table: pa.Table) -> None:
            if table.num_rows != expected:
                raise TransientReply(f"{table.num_rows} rows came, COUNT(*) says {expected}")

        return self._ask(sql, schema, whole)

    def _ask(self, sql: str, schema: pa.Schema, check: Callable[[pa.Table], None]) -> pa.Table:
        patience, attempts = self._patience, Attempts(self._patience)
        while True:
            self._pace()
            try:
                # In a thread: a query may take ten minutes, a stop has to be obeyed in seconds.
                (body,) = in_order(self._get, [sql], threads=1)
                table = parse_reply(body, schema, ROW_LIMIT)
                check(table)
                return table
            except (_Busy, TransientReply) as error:
                pause_s = attempts.pause_s(error.retry_after_s if isinstance(error, _Busy) else None, self._answered)
                if pause_s is None:
                    if isinstance(error, _Busy) and error.unreachable and not self._answered:
                        raise unreachable(self.server.base_url, error.unreachable, attempts.seconds) from None
                    raise TryAgain(
                        f"{self.server.base_url}: {error}; "
                        f"asked {attempts.failures} times in {attempts.seconds:.0f} s: "
                        "check the network, or run the same command again later; finished pages are kept"
                    ) from None
                log.warning("%s: %s; asking again in %.1f s", self.server.base_url, error, pause_s)
                patience.sleep(pause_s)
            except SlowQuery as error:
                raise TryAgain(
                    f"{self.server.base_url}: {error}; ask for a smaller --region, or again when it is less busy"
                ) from None
            except RefusedQuery as error:
                raise PhotozError(f"{self.server.base_url}: {error} [{sql[:120]}…]") from None

    def _pace(self) -> None:
        wait_s = self._next_at - self._patience.now()
        if wait_s > 0:
            self._patience.sleep(wait_s)
        self._next_at = self._patience.now() + self._spacing_s

    def _get(self, sql: str) -> str:
        """The text of the reply to one query. astroquery's own cache would hide a changed sky: it stays off."""
        try:
            with _astroquery, conf.set_temp("skyserver_baseurl", self.server.base_url):
                response = self._sdss.query_sql_async(
                    sql,
                    timeout=(self._patience.connect_s, self._patience.read_s),
                    data_release=self.server.release,
                    cache=False,
                )
        except TRANSIENT_ERRORS as error:
            why = why_unreachable(error, self.server.base_url)
            raise _Busy(f"no whole reply ({_cause(error)})", unreachable=why) from None
        except requests.exceptions.RequestException as error:
            raise BadInput(f"--survey-url {self.server.base_url}: can't be asked: {error}") from None
        self._answered = True
        body: str = response.content.decode("utf-8", errors="replace")
        if response.status_code == 200 and "\N{REPLACEMENT CHARACTER}" in body:
            raise _Busy("the reply holds bytes that are no text")
        if response.status_code in (400, 500):
            refuse_error(body)
        if response.status_code in TRANSIENT_STATUSES:
            raise _Busy(
                f"HTTP {response.status_code}",
                retry_after_s(response.headers.get("Retry-After"), self._patience.wall()),
            )
        if response.status_code in (401, 403):
            raise BadInput(
                f"{self.server.base_url}: HTTP {response.status_code}: it refuses to answer this machine; "
                "check --survey-url and the proxy, or ask the survey why"
            )
        if response.status_code != 200:
            raise BadInput(
                f"{response.url.partition('?')[0]}: HTTP {response.status_code}; "
                "expected a SkyServer: check --survey-url"
            )
        return body


def _read_bounded(reply: requests.Response, **_options: object) -> None:
    """Read a reply's body as requests does, but no more of it than rows can be. Raises ContentDecodingError."""
    parts, size = [], 0
    for part in reply.iter_content(2**20):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            reply.close()
            raise requests.exceptions.ContentDecodingError(f"more than {MOST_BYTES} bytes")
    reply._content = b"".join(parts)  # where `content` looks for what was read


def _cause(error: requests.exceptions.RequestException) -> str:
    """The innermost failure's name: NameResolutionError, NewConnectionError, ProtocolError …"""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    return type(getattr(inner, "reason", None) or inner).__name__


def _one_row(table: pa.Table) -> None:
    if table.num_rows != 1:
        raise TransientReply(f"{table.num_rows} rows came for a COUNT(*), expected one")
