"""Running the embedded sky: in this process until stopped, or as a process of its own for the length of a block."""

import json
import logging
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import Any

from photoz import runtime
from photoz.errors import BadInput, TryAgain
from photoz.survey.embedded.faults import parse_faults
from photoz.survey.embedded.identity import DEFAULT_GALAXIES, ROW_LIMIT, TIME_LIMIT_S, SkyIdentity
from photoz.survey.embedded.stopping import ignore_stop_signals

logger = logging.getLogger("photoz.survey.embedded")

_START_LIMIT_S = 300.0  # a million galaxies take a minute or two


def serve(
    host: str = "127.0.0.1",
    port: int = 8080,
    galaxies: int = DEFAULT_GALAXIES,
    seed: int = 0,
    faults: str = "",
    *,
    row_limit: int = ROW_LIMIT,
    time_limit_s: float = TIME_LIMIT_S,
    until: Callable[[], object] | None = None,
) -> None:
    """Serve the sky until SIGINT or SIGTERM, or, if given, until `until` returns whatever signals come.

    Prints one line of JSON when it is ready.

    Raises BadInput for an address that can't be listened on, for bad fault specifications and too few galaxies.
    """
    identity = check_identity(galaxies, seed)
    planned = parse_faults(faults, seed)
    _check_address(host, port)
    if until is None:
        _on_stop_signals(lambda: sys.exit(0))  # nothing to finish while the sky is being built
    else:
        ignore_stop_signals()
    from photoz.survey.embedded.population import build_population  # loads in a second
    from photoz.survey.embedded.server import EmbeddedSky
    from photoz.survey.embedded.sql import SkyDatabase
    from photoz.survey.embedded.workers import DrawingPool

    with closing(DrawingPool(runtime.usable_cores())) as pool:
        population = build_population(galaxies, seed)
        with closing(SkyDatabase(population, row_limit, time_limit_s)) as database:
            pool.begin(population, seed)
            with EmbeddedSky((host, port), identity, database, pool, planned) as server:
                if until is None:
                    # serve_forever runs in this thread, and shutdown waits for it to end.
                    _on_stop_signals(threading.Thread(target=server.shutdown, daemon=True).start)
                else:
                    threading.Thread(target=_shut_down_after, args=(until, server.shutdown), daemon=True).start()
                ready = {"url": server.url, "galaxies": galaxies, "seed": seed, "simulated": True}
                print(json.dumps(ready), flush=True)
                logger.info("serving %d galaxies at %s (simulated images)", galaxies, server.url)
                server.serve_forever(poll_interval=0.2)


def _shut_down_after(until: Callable[[], object], shutdown: Callable[[], None]) -> None:
    until()
    shutdown()


def check_identity(galaxies: int, seed: int) -> SkyIdentity:
    """The sky of these numbers. Raises BadInput where there is none."""
    if galaxies < 100:
        raise BadInput(f"--galaxies {galaxies}: expected at least 100; the usual number is {DEFAULT_GALAXIES}")
    if galaxies > 5_000_000:
        raise BadInput(f"--galaxies {galaxies}: expected at most 5000000; more do not fit in memory")
    if not 0 <= seed < 2**63:
        raise BadInput(f"--seed {seed}: expected 0 to {2**63 - 1}")
    return SkyIdentity(galaxies, seed)


def _check_address(host: str, port: int) -> None:
    """Refuse a bad address before the sky is built, which takes a while."""
    if not 0 <= port <= 65535:
        raise BadInput(f"--port {port}: expected 0 to 65535 (0 takes any free port)")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            advice = "choose another --host or --port (port 0 takes any free one)"
            raise BadInput(f"can't listen on {host}:{port}: {error.strerror or error}; {advice}") from None


def _on_stop_signals(stop: Callable[[], None]) -> None:
    """SIGINT and SIGTERM call this."""

    def handle(number: int, frame: FrameType | None) -> None:
        for later in (signal.SIGINT, signal.SIGTERM):
            signal.signal(later, signal.SIG_IGN)  # once is enough
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


@contextmanager
def open_embedded_sky(
    galaxies: int = DEFAULT_GALAXIES, seed: int = 0, faults: str = "", **limits: float
) -> Iterator[str]:
    """A sky server on a free loopback port while the block runs; yields its base URL.

    It runs in processes of its own, which end with the block, and with this process however that ends.
    Raises BadInput for bad settings and TryAgain where the server does not start.
    """
    check_identity(galaxies, seed)
    parse_faults(faults, seed)
    settings = {"port": 0, "galaxies": galaxies, "seed": seed, "faults": faults, **limits}
    command = [sys.executable, "-m", "photoz.survey.embedded", json.dumps(settings)]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, start_new_session=True
        )
        try:
            yield _wait_for_url(process, complaints)
        finally:
            _stop(process)


def _wait_for_url(process: "subprocess.Popen[bytes]", complaints: Any) -> str:
    assert process.stdout is not None
    timer = threading.Timer(_START_LIMIT_S, process.kill)
    timer.start()
    line = process.stdout.readline()
    timer.cancel()
    if line:
        return str(json.loads(line)["url"])
    complaints.seek(0)
    last = (complaints.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    raise TryAgain(f"the embedded sky's server did not start (status {process.wait()}): {last}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """The server leaves when its standard input closes."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def sky_identity(url: str | None = None) -> dict[str, Any]:
    """Galaxies, seed and version of the sky at `url`, or of the one that open_embedded_sky starts.

    Raises BadInput where no embedded sky answers at `url`, and TryAgain where nothing does.
    """
    import requests  # not needed to start a sky

    if url is None:
        identity = SkyIdentity()
        return {"galaxies": identity.galaxies, "seed": identity.seed, "version": identity.version}
    address = f"{url.rstrip('/')}/sky.json"
    for wait_s in (0.0, 0.5, 2.0):
        time.sleep(wait_s)
        try:
            reply = requests.get(address, timeout=30)
        except requests.exceptions.InvalidURL as error:
            raise BadInput(f"--survey-url {url}: {error}") from None
        except requests.exceptions.RequestException as error:
            failure = str(error)
            continue
        if reply.status_code < 500 and reply.status_code != 429:
            try:
                content = reply.json()
                return {key: content[key] for key in ("galaxies", "seed", "version")}
            except (ValueError, KeyError, TypeError):
                failure = "the reply is not that of an embedded sky"
        else:
            failure = f"status {reply.status_code}"
    advice = "start one with photoz-job sky serve"
    raise TryAgain(f"--survey-url {url}: no embedded sky answers there ({failure}); {advice}")
