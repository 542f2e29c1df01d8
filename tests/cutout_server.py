"""A small HTTP server on raw sockets that answers each cutout request just as badly as a test wants."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.shards_support import noise_jpeg

RESET, HANG_UP, DRIP = b"<reset>", b"<hang up>", b"<drip>"


def reply(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """A whole HTTP reply; `headers` with '_' for '-'."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def good(ra: float, size_px: int = 64) -> bytes:
    """The cutout at a position: the same bytes each time it is asked for."""
    return reply(noise_jpeg(int(ra * 1000), size_px), Content_Type="image/jpeg")


def in_chunks(ra: float) -> bytes:
    """A good reply in chunks of 1,000 bytes, its length not announced."""
    body = good(ra).partition(b"\r\n\r\n")[2]
    parts = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def cut_short(ra: float) -> bytes:
    """A reply that announces more bytes than come before the connection closes."""
    return good(ra)[:-500] + HANG_UP


@dataclass
class CutoutServer:
    """`answer(ra, nth)` gives the raw reply to the nth request (from 0) for that position."""

    answer: Callable[[float, int], bytes]
    url: str = ""
    connections: int = 0
    asked: Counter[float] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    together: int = 0  # most requests in hand at once
    _in_hand: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: socket.socket) -> None:
        """Answer one connection's requests until either side closes it."""
        with suppress(ConnectionResetError), connection, connection.makefile("rb") as lines:
            while request := lines.readline():
                while lines.readline().strip():
                    pass
                address = urlsplit(request.split()[1].decode())
                if address.path == "/sky.json":  # how the embedded sky tells its identity
                    connection.sendall(reply(b'{"galaxies": 100, "seed": 0, "version": 1}'))
                    continue
                ra = float(parse_qs(address.query)["ra"][0])
                with self._lock:
                    nth = self.asked[ra]
                    self.asked[ra] += 1
                    self.times.append(time.monotonic())
                    self._in_hand += 1
                    self.together = max(self.together, self._in_hand)
                raw = self.answer(ra, nth)
                with self._lock:
                    self._in_hand -= 1
                if not self._send(connection, raw):
                    return

    def _send(self, connection: socket.socket, raw: bytes) -> bool:
        if raw == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        try:
            if raw.endswith(DRIP):
                for byte in raw.removesuffix(DRIP):
                    connection.sendall(bytes([byte]))
                    time.sleep(0.01)
                return False
            connection.sendall(raw.removesuffix(HANG_UP))
        except OSError:
            return False
        return not raw.endswith(HANG_UP)


@contextmanager
def cutout_server(answer: Callable[[float, int], bytes]) -> Iterator[CutoutServer]:
    """Run a server on a free loopback port for as long as the block lasts."""
    server = CutoutServer(answer)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                server.connections += 1
                threading.Thread(target=server.serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
