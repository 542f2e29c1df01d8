"""A fault proxy in front of a real S3 server: forwards requests as they came, but some fail, by a seeded plan.

The Host header stays the client's, so signatures stay valid. As a program (`python -m tests.s3_proxy`) it prints its
URL as one line of JSON and writes the counts of injected faults to --counts when it gets SIGTERM.
"""

import argparse
import http.client
import json
import random
import re
import signal
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
# Well-formed, so that it passes for XML: the harder case.
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><p>Please sign in.<br/></p></body></html>"
SILENCE_S = 60.0  # how long a request that gets no answer is held at most


@dataclass
class Reply:
    """What goes back to the client; `body` may be cut or changed after `length` is announced."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: int | None = None  # Content-Length where it is not the body's


def _refusal(status: int, code: str, *headers: tuple[str, str]) -> Reply:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    return Reply(status, [("Content-Type", "application/xml"), *headers], body)


def _skewed() -> Reply:
    behind = format_datetime(datetime.now(UTC) - timedelta(minutes=20), usegmt=True)
    return _refusal(403, "RequestTimeTooSkewed", ("Date", behind))


# Answered by the proxy itself, the request never gets to the server.
REFUSALS: dict[str, Callable[[], Reply]] = {
    "429": lambda: _refusal(429, "TooManyRequests", ("Retry-After", "1")),
    "500": lambda: _refusal(500, "InternalError"),
    "503": lambda: _refusal(503, "SlowDown"),
    "html": lambda: Reply(200, [("Content-Type", "text/html")], HTML),
    "skew": _skewed,
    "expired": lambda: _refusal(400, "ExpiredToken"),
    "denied": lambda: _refusal(403, "AccessDenied"),
}
# The connection is at fault: cut before the request is passed on, cut after the server did it, or never answered.
CONNECTION = ("reset", "lost", "timeout")
# The bytes are: of the reply's body (cut, announced and sent shorter, changed), or of the request's.
BODY = ("truncated", "short", "flipped", "flipped_upload")
KINDS = (*REFUSALS, *CONNECTION, *BODY)


@dataclass
class _Planned:
    kind: str
    method: str | None
    key: re.Pattern[str]
    left: int


@dataclass
class Proxy:
    """A running proxy: its address, what it has injected, and what it is told to inject next."""

    upstream: str
    rates: Mapping[str, float]
    dice: random.Random
    url: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path, headers
    released: threading.Event = field(default_factory=threading.Event)
    _planned: list[_Planned] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, kind: str, method: str | None = None, key_pattern: str | None = None, times: int = 1) -> None:
        """Fail the next `times` requests with this method whose path and query match the pattern, in this way."""
        assert kind in KINDS, kind
        with self._lock:
            self._planned.append(_Planned(kind, method, re.compile(key_pattern or ""), times))

    def clear(self) -> None:
        """Forget what was planned and seen."""
        with self._lock:
            self._planned.clear()
            self.counts.clear()
            self.requests.clear()

    def choose(self, method: str, path: str) -> str | None:
        """The fault for this request: a planned one, else by the dice."""
        with self._lock:
            for planned in self._planned:
                if planned.left and planned.method in (None, method) and planned.key.search(path):
                    planned.left -= 1
                    return planned.kind
            drawn = self.dice.random()
            for kind, rate in self.rates.items():
                if (drawn := drawn - rate) < 0:
                    return kind
            return None

    def note(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: Proxy

    def setup(self) -> None:
        super().setup()
        self.proxy.connections += 1
        self._server: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        if self._server is not None:
            self._server.close()
        with suppress(OSError):
            super().finish()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        kind = self.proxy.choose(self.command, self.path)
        if kind == "flipped_upload" and not body:
            kind = None
        if kind == "timeout":
            self.proxy.note(kind)
            self.proxy.released.wait(SILENCE_S)
            return self._cut()
        if kind == "reset":
            self.proxy.note(kind)
            return self._cut()
        if kind in REFUSALS:
            self.proxy.note(kind)
            return self._send(REFUSALS[kind]())
        if kind == "flipped_upload":
            self.proxy.note(kind)
            body = _flipped(body)
        reply = self._forward(body)
        if kind == "lost":
            self.proxy.note(kind)
            return self._cut()
        if kind in BODY and kind != "flipped_upload" and len(reply.body) > 1 and self.command == "GET":
            self.proxy.note(kind)
            reply = _damaged(reply, kind)
        return self._send(reply)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _handle  # noqa: N815

    def _forward(self, body: bytes) -> Reply:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        for last_try in (False, True):
            if self._server is None:
                address = urlsplit(self.proxy.upstream)
                assert address.hostname
                self._server = http.client.HTTPConnection(address.hostname, address.port, timeout=SILENCE_S)
            try:
                self._server.request(self.command, self.path, body=body or None, headers=headers)
                answer = self._server.getresponse()
                break
            except (http.client.RemoteDisconnected, ConnectionError):
                # The server has closed a connection that lay idle: never seen by a client of its own.
                self._server.close()
                self._server = None
                if last_try:
                    raise
        content = answer.read()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP]
        length = answer.getheader("Content-Length")
        return Reply(answer.status, kept, content, int(length) if self.command == "HEAD" and length else None)

    def _send(self, reply: Reply) -> None:
        announced = len(reply.body) if reply.length is None else reply.length
        self.send_response_only(reply.status)
        if not any(name.lower() == "date" for name, _ in reply.headers):
            self.send_header("Date", self.date_time_string())
        for name, value in reply.headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        if reply.status not in (204, 304):
            self.send_header("Content-Length", str(announced))
        with suppress(OSError):  # a client that has gone away
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
                self.close_connection |= len(reply.body) < announced

    def _cut(self) -> None:
        """Close with a reset, as a dying server or a firewall does."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: faults are counted, and a test that fails shows its own story."""


def _flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def _damaged(reply: Reply, kind: str) -> Reply:
    body, half = reply.body, len(reply.body) // 2
    if kind == "truncated":
        return Reply(reply.status, reply.headers, body[:half], len(body))
    return Reply(reply.status, reply.headers, body[:half] if kind == "short" else _flipped(body))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients that go away are part of the experiment."""


@contextmanager
def running_proxy(
    upstream: str,
    faults: Mapping[str, float] | None = None,
    seed: int = 0,
    *,
    port: int = 0,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Proxy]:
    """Run a proxy before `upstream`; `faults` is the probability of each kind, `certificate` a PEM file and its key."""
    assert set(faults or {}) <= set(KINDS), f"expected faults of {', '.join(KINDS)}"
    proxy = Proxy(upstream, faults or {}, random.Random(seed))
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"proxy": proxy}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    proxy.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def parse_faults(text: str) -> dict[str, float]:
    """`503=0.05,lost=0.01` as a dictionary."""
    return {kind: float(rate) for kind, _, rate in (part.partition("=") for part in text.split(",") if part)}


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--faults", default="", help=f"such as 503=0.05,lost=0.01; kinds: {' '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--counts", type=Path, help="file that gets the counts as JSON at the end")
    options = parser.parse_args()
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # inherited by the server's threads: only sigwait takes them
    with running_proxy(options.upstream, parse_faults(options.faults), options.seed, port=options.port) as proxy:
        print(json.dumps({"url": proxy.url}), flush=True)
        signal.sigwait(stops)
        if options.counts:
            options.counts.write_text(json.dumps({"requests": len(proxy.requests), **proxy.counts}))


if __name__ == "__main__":
    main()
