"""SkyServer's SQL search and image cutouts over HTTP, answered by the embedded sky."""

import html
import json
import logging
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from photoz.sky.faults import RETRY_AFTER_S, SILENT_S, SLOW_S, Faults, corrupted
from photoz.sky.identity import SkyIdentity
from photoz.sky.request import BadRequest, parse_cutout
from photoz.sky.sql import QueryError, QueryTimeout, SkyDatabase, to_csv
from photoz.sky.workers import DrawingFailed, DrawingPool

logger = logging.getLogger("photoz.sky")

FAULT_COUNTS = "faults.json"  # how often each fault was injected; it never fails itself
SIMULATED_HEADER = ("X-Simulated", "photoz embedded sky: simulated images, not observations")


@dataclass(frozen=True)
class Reply:
    """What goes back to the client."""

    body: bytes
    content_type: str
    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)


Refusal = Callable[[HTTPStatus, str], Reply]


class EmbeddedSky(ThreadingHTTPServer):
    """One thread a connection parses requests; SQL runs there, cutouts in the pool's processes."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, address: tuple[str, int], identity: SkyIdentity, database: SkyDatabase, pool: DrawingPool, faults: Faults
    ) -> None:
        self.identity, self.database, self.pool, self.faults = identity, database, pool, faults
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """Address to give as --survey-url."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to report; anything else is."""
        logger.exception("request from %s failed", client_address)

    def answer(self, path: str, parameters: dict[str, str]) -> Reply:
        """Route a request. Paths are those of SkyServer, for any data release."""
        parts = [part.lower() for part in path.split("/") if part]
        if not parts:
            return self._index()
        if parts == ["sky.json"]:
            return _json(asdict(self.identity))
        if parts == [FAULT_COUNTS]:
            return _json(self.faults.injected)
        if parts[1:] == ["skyserverws", "imgcutout", "getjpeg"]:
            return self._cutout(parameters)
        if parts[1:] == ["skyserverws", "searchtools", "sqlsearch"]:
            return self._sql(parameters, _json_error)
        if parts[1:] == ["en", "tools", "search", "x_results.aspx"]:
            return self._sql(parameters, _html_error)
        return _json_error(HTTPStatus.NOT_FOUND, f"No HTTP resource was found that matches the request URI '{path}'.")

    def _cutout(self, parameters: dict[str, str]) -> Reply:
        try:
            return Reply(self.pool.draw(parse_cutout(parameters)), "image/jpeg")
        except BadRequest as error:
            return _json_error(HTTPStatus.BAD_REQUEST, str(error))
        except DrawingFailed as error:
            logger.error("drawing failed: %s", error)
            return _json_error(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def _sql(self, parameters: dict[str, str], refuse: Refusal) -> Reply:
        """SkyServer answers a query it can't run with status 200 and a table of one error_message."""
        query, output = parameters.get("cmd", ""), parameters.get("format", "csv").lower()
        if not query.strip():
            return refuse(HTTPStatus.BAD_REQUEST, "Parameter 'cmd' is missing: there is no SQL query to run.")
        if output not in ("csv", "json"):
            return refuse(HTTPStatus.BAD_REQUEST, f"format '{output}' is not served here; use csv or json.")
        try:
            table = self.database.select(query)
        except QueryTimeout as error:
            return refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except QueryError as error:
            if output == "csv":
                return Reply(f"#Table1\nerror_message\n{_csv_field(str(error))}\n".encode(), "text/plain")
            return _json([{"TableName": "Table1", "Rows": [{"error_message": str(error)}]}])
        if output == "csv":
            return Reply(to_csv(table), "text/plain")
        return _json([{"TableName": "Table1", "Rows": table.to_pylist()}])

    def _index(self) -> Reply:
        numbers = asdict(self.identity)
        rows = "".join(f"<tr><td>{html.escape(key)}</td><td>{value}</td></tr>" for key, value in numbers.items())
        page = (
            "<!doctype html><html><head><title>photoz embedded sky</title></head><body>"
            "<h1>photoz embedded sky</h1><p><strong>Simulated.</strong> Positions, redshifts and fluxes are those of "
            "SDSS galaxies; every image is drawn by a computer, and so are the objects around them. Nothing here is "
            f"an observation.</p><table>{rows}</table><ul>"
            "<li><code>/dr17/SkyServerWS/ImgCutout/getjpeg?ra=&amp;dec=&amp;scale=&amp;width=&amp;height=</code></li>"
            "<li><code>/dr17/SkyServerWS/SearchTools/SqlSearch?cmd=&amp;format=csv</code></li>"
            "<li><code>/dr17/en/tools/search/x_results.aspx?cmd=&amp;format=csv&amp;searchtool=SQL</code></li>"
            "<li><a href='/sky.json'>/sky.json</a></li></ul></body></html>"
        )
        return Reply(page.encode(), "text/html; charset=utf-8")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "photoz-embedded-sky"
    disable_nagle_algorithm = True
    wbufsize = 65536
    timeout = 120  # an idle connection is closed after this many seconds
    server: EmbeddedSky

    def do_GET(self) -> None:
        self._handle(self.path)

    def do_POST(self) -> None:
        """The same parameters from a form."""
        length = int(self.headers.get("Content-Length") or 0)
        if length > 1_000_000:
            self._send(_json_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too long."))
            return
        form = self.rfile.read(length).decode("utf-8", "replace")
        self._handle(f"{self.path}{'&' if '?' in self.path else '?'}{form}")

    def _handle(self, target: str) -> None:
        split = urlsplit(target)
        given = parse_qs(split.query, keep_blank_values=True)
        parameters = {name.lower(): values[-1] for name, values in given.items()}
        fault = None if split.path == f"/{FAULT_COUNTS}" else self.server.faults.next_for(target)
        try:
            if fault is None:
                self._send(self.server.answer(split.path, parameters))
            else:
                self._fail(fault, target, lambda: self.server.answer(split.path, parameters))
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _fail(self, fault: str, target: str, answer: Callable[[], Reply]) -> None:
        if fault == "reset":
            # Zero linger turns the close into a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            raise ConnectionResetError
        if fault == "timeout":
            self.connection.settimeout(SILENT_S)
            self.connection.recv(1)  # returns when the client closes its end
            self.close_connection = True
        elif fault in ("403", "429", "500", "503"):
            status = HTTPStatus(int(fault))
            retry = {"Retry-After": str(RETRY_AFTER_S)} if fault in ("429", "503") else {}
            refusal = _json_error(status, status.phrase)
            self._send(Reply(refusal.body, refusal.content_type, status, retry))
        elif fault == "html200":
            self._send(_html_error(HTTPStatus.OK, "Query did not return results successfully, try again later."))
        elif fault == "slow":
            time.sleep(SLOW_S)
            self._send(answer())
        else:
            self._send_damaged(fault, target, answer())

    def _send_damaged(self, fault: str, target: str, reply: Reply) -> None:
        half = len(reply.body) // 2
        if fault == "truncate":
            self._send(reply, cut_at=half)
        else:
            self._send(replace(reply, body=reply.body[:half] if fault == "length" else corrupted(reply.body, target)))

    def _send(self, reply: Reply, cut_at: int | None = None) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header(*SIMULATED_HEADER)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[:cut_at])
        self.wfile.flush()
        if cut_at is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: there are thousands."""


def _json(content: object) -> Reply:
    return Reply(json.dumps(content, default=int).encode(), "application/json")


def _json_error(status: HTTPStatus, message: str) -> Reply:
    """The error body of SkyServer's web services."""
    kind = "".join(word.capitalize() for word in status.phrase.split())
    content = {"ErrorCode": int(status), "ErrorType": kind, "ErrorMessage": message, "LogMessageID": ""}
    return Reply(json.dumps(content).encode(), "application/json", status)


def _html_error(status: HTTPStatus, message: str) -> Reply:
    """The error page of SkyServer's search tools: status 200, whatever went wrong."""
    page = (
        "<html><head>\n<title>Skyserver Error</title>\n</head><body bgcolor=white>\n<h2>An error occured</h2>"
        f"<H3 BGCOLOR=pink><font color=red><br>{html.escape(message)}</font></H3></BODY></HTML>\n"
    )
    return Reply(page.encode(), "text/html; charset=utf-8")


def _csv_field(text: str) -> str:
    return '"' + text.replace('"', "'").replace("\n", " ") + '"'
