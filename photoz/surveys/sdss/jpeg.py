"""JPEG cutouts over HTTP (SkyServer's ImgCutout): polite, patient, and only ever whole pictures of sky."""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3 import exceptions as http

import photoz
from photoz.errors import BadInput, TryAgain
from photoz.images.picture import NoCutout
from photoz.ordered import in_order
from photoz.retry import TRANSIENT_STATUSES, Patience, retry_after_s, usual_budget_s
from photoz.surveys.reach import unreachable, why_unreachable
from photoz.surveys.sdss.sky_jpeg import check_jpeg

PATH = "/dr{release}/SkyServerWS/ImgCutout/getjpeg"
AHEAD = 256  # cutouts in memory at most; enough that one slow galaxy does not stall the others
MAX_REPLY_BYTES = 64 * 2**20
TIMEOUT = urllib3.Timeout(connect=10, read=20)
REPLY_LIMIT_S = 60.0

# Worth another try: the server or the network may do better in a moment. Nothing else is asked for twice.
TRANSIENT_ERRORS = (
    http.NewConnectionError,  # refused, unreachable, name not resolved
    http.ConnectTimeoutError,
    http.ReadTimeoutError,
    http.ProtocolError,  # reset, closed early, fewer bytes than announced
    http.ProxyError,
)
# Of these, ones that a server may also give for one position only: the galaxy is given up after TRIES in a row
# of the same, provided that other galaxies' cutouts came in well meanwhile.
SUSPECTS = frozenset({"http_500", "not_an_image", "corrupt"})
TRIES = 10
REFUSALS = 50  # galaxies refused in a row before it is the survey's or the address's fault, not theirs
BLANKS = 1000  # the same for blank sky from the first galaxy on: a few of a field's galaxies may still be inside
BACKOFF = Patience(budget_s=0.0, longest_pause_s=5.0)  # the budget is the service's


@dataclass(frozen=True, kw_only=True)
class CutoutService:
    """Where cutouts come from and how they are framed: `size_px` squared at `scale_arcsec_per_px`."""

    base_url: str
    size_px: int
    scale_arcsec_per_px: float
    release: int = 17  # data release, part of the path
    requests_per_s: float | None = None  # politeness limit, over all connections
    connections: int = 8
    # How long one galaxy is retried, waits that the server asks for included.
    patience_s: float = field(default_factory=usual_budget_s)


def fetch_cutouts(service: CutoutService, positions_deg: Iterable[tuple[float, float]]) -> Iterator[bytes | NoCutout]:
    """Yield, in order, the JPEG at each (ra, dec), or why there is none for good.

    Raises TryAgain when transient failures outlast `patience_s`, BadInput when the service refuses altogether or there
    is no way to it from here.
    """
    client, losses = _Client(service), _Losses(service.base_url)
    for reply in in_order(client.fetch, positions_deg, service.connections, AHEAD, cancel=client.stopped.set):
        losses.count(reply)
        yield reply


@dataclass
class _Losses:
    """Tells a survey that fails from galaxies that have no cutout: those don't come in long rows, in random order."""

    base_url: str
    served: int = 0
    lost: int = 0
    _lost_in_a_row: int = 0

    def count(self, reply: bytes | NoCutout) -> None:
        """Raise BadInput if there never was a cutout, TryAgain if there suddenly are no more."""
        if isinstance(reply, bytes):
            self.served += 1
            self._lost_in_a_row = 0
            return
        self.lost += 1
        self._lost_in_a_row += 1
        nowhere = f"{self.base_url}: {self._lost_in_a_row} galaxies in a row without a cutout ({reply})"
        if not self.served and self.lost >= (REFUSALS if reply.reason != "blank" else BLANKS):
            raise BadInput(f"{nowhere}, and none before; check the survey's address and where the galaxies are")
        if self._lost_in_a_row >= REFUSALS and self.served > self.lost:
            raise TryAgain(f"{nowhere}, most others had one: the survey seems to fail; run the same command later")


class _Transient(Exception):
    """A try that failed in a way that may pass. `reason` is a word such as http_503; `wait_s` what the server asks.

    `unreachable` says why there was no connection, where that won't change.
    """

    def __init__(self, reason: str, detail: str, wait_s: float = 0.0, unreachable: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.wait_s, self.unreachable = reason, detail, wait_s, unreachable


@dataclass
class _Pacer:
    """Hands out moments to ask: at most `per_s` a second, and none while the server has asked for a pause."""

    per_s: float | None
    _next: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def delay_s(self) -> float:
        """Seconds to wait before the next request; the moment is taken."""
        with self._lock:
            now = time.monotonic()
            moment = max(now, self._next)
            self._next = moment + 1 / self.per_s if self.per_s else self._next
            return moment - now

    def hold(self, seconds: float) -> None:
        """Let nobody ask for `seconds` from now on."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class _Client:
    """Shared by all threads: connections, pace, and whether any cutout has come in well."""

    def __init__(self, service: CutoutService) -> None:
        self.service = service
        self.served = 0
        self.answered = False  # whether the service has ever said anything
        self.stopped = threading.Event()
        self._pacer = _Pacer(service.requests_per_s)
        self._pool = _connections(service)

    def fetch(self, position_deg: tuple[float, float]) -> bytes | NoCutout:
        """The cutout at one position, however many tries it takes within the patience."""
        deadline = time.monotonic() + self.service.patience_s
        served_before, tries, failure = self.served, 0, _Transient("paused", "the server asked for a pause")
        while True:
            self._pause(self._pacer.delay_s(), failure, deadline)
            try:
                data = self._ask(position_deg)
            except NoCutout as final:
                return final
            except _Transient as another:
                tries = tries + 1 if another.reason == failure.reason else 1
                failure = another
            else:
                self.served += 1  # a lost update between threads does no harm: only growth matters
                return data
            if tries >= TRIES and failure.reason in SUSPECTS and self.served > served_before:
                return NoCutout(failure.reason, failure.detail)
            if failure.wait_s:
                self._pacer.hold(failure.wait_s)
            self._pause(BACKOFF.pause_s(tries, None), failure, deadline)

    def _pause(self, seconds: float, failure: _Transient, deadline: float) -> None:
        """Wait, unless that would go beyond the patience, or all is being given up: TryAgain or BadInput then."""
        if seconds <= 0:
            return
        if time.monotonic() + seconds > deadline:
            if failure.unreachable and not self.answered:
                raise unreachable(self.service.base_url, failure.unreachable, self.service.patience_s)
            asked = f", and asks to wait {failure.wait_s:.0f} s" if failure.wait_s else ""
            raise TryAgain(
                f"{self.service.base_url}: {failure}{asked}; retried for at most {self.service.patience_s:g} s; "
                "finished shards are kept: run the same command later to go on"
            )
        if self.stopped.wait(seconds):
            raise TryAgain(f"{self.service.base_url}: stopped asking")

    def _ask(self, position_deg: tuple[float, float]) -> bytes:
        try:
            reply = self._pool.request(
                "GET",
                self._url(position_deg),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            self.answered = True
            data = _read(reply)
        except http.SSLError as error:
            raise BadInput(f"{self.service.base_url}: {_one_line(error)}; check its certificate") from None
        except TRANSIENT_ERRORS as error:
            why = why_unreachable(error, self.service.base_url)
            raise _Transient(type(error).__name__, _one_line(error), unreachable=why) from None
        self._check_status(reply, data)
        try:
            check_jpeg(data, self.service.size_px)
        except NoCutout as fault:
            if fault.reason in SUSPECTS:
                raise _Transient(fault.reason, fault.detail) from None
            raise
        return data

    def _url(self, position_deg: tuple[float, float]) -> str:
        size, scale = self.service.size_px, self.service.scale_arcsec_per_px
        query = {"ra": position_deg[0], "dec": position_deg[1], "scale": scale, "width": size, "height": size}
        return f"{self.service.base_url.rstrip('/')}{PATH.format(release=self.service.release)}?{urlencode(query)}"

    def _check_status(self, reply: urllib3.BaseHTTPResponse, data: bytes) -> None:
        if reply.status == 200:
            return
        said = _one_line(data[:200].decode("latin-1")) or str(reply.reason)
        if reply.status in TRANSIENT_STATUSES:
            raise _Transient(
                f"http_{reply.status}", said, retry_after_s(reply.headers.get("Retry-After"), time.time()) or 0.0
            )
        if reply.status in (400, 404, 410, 422):
            raise NoCutout(f"http_{reply.status}", said)
        if reply.status in (401, 403):
            raise BadInput(
                f"{self.service.base_url}: status {reply.status} ({said}): it refuses to answer this machine; "
                "check --survey-url and the proxy, or ask the survey why"
            )
        where = f" to {reply.headers['Location']}" if "Location" in reply.headers else ""
        raise BadInput(f"{self.service.base_url}: status {reply.status}{where} ({said}); check the survey's address")


def _connections(service: CutoutService) -> urllib3.PoolManager:
    """A pool for one host, through the machine's HTTP proxy where it has one (compute nodes often do)."""
    parts = urlsplit(service.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"survey address {service.base_url!r}: expected http://host or https://host")
    headers = {"User-Agent": f"photoz/{photoz.__version__}"}
    proxy = getproxies().get(parts.scheme)
    if proxy and parts.hostname not in ("localhost", "127.0.0.1", "::1") and not proxy_bypass(parts.hostname):
        login = urlsplit(proxy)
        auth = f"{login.username}:{login.password}" if login.username else None
        proxy_headers = urllib3.make_headers(proxy_basic_auth=auth)
        return urllib3.ProxyManager(
            proxy, proxy_headers=proxy_headers, headers=headers, maxsize=service.connections, timeout=TIMEOUT
        )
    return urllib3.PoolManager(headers=headers, maxsize=service.connections, timeout=TIMEOUT)


def _read(reply: urllib3.BaseHTTPResponse) -> bytes:
    """The body, in bounded time and memory."""
    deadline = time.monotonic() + REPLY_LIMIT_S
    parts: list[bytes] = []
    size = 0
    while part := reply.read1(2**16):
        parts.append(part)
        size += len(part)
        if size > MAX_REPLY_BYTES or time.monotonic() > deadline:
            reply.close()
            raise _Transient("too_slow_or_long", f"{size} bytes in {REPLY_LIMIT_S:.0f} s or less")
    reply.release_conn()
    return b"".join(parts)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]
