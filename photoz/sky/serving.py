"""Running the embedded sky: in this process until stopped, or as a process of its own for the length of a block."""

import json
import logging
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from socketserver import BaseServer
from types import FrameType
from typing import Any

from photoz import runtime
from photoz.errors import BadInput, TryAgain
from photoz.retry import TRANSIENT_STATUSES
from photoz.sky.faults import parse_faults
from photoz.sky.identity import DEFAULT_GALAXIES, ROW_LIMIT, TIME_LIMIT_S, SkyIdentity
from photoz.sky.stopping import ignore_stop_signals

logger = logging.getLogger("photoz.sky")

_START_LIMIT_S = 300.0  # a million galaxies take a minute or two
_POLL_S = 0.5
_IDENTITY_TRIES, _IDENTITY_TIMEOUT_S = 5, 5.0


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
    """Serve the sky until SIGINT, SIGTERM or SIGUSR1, or, if given, until `until` returns whatever signals come.

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
    from photoz.sky.population import build_population  # loads in a second
    from photoz.sky.server import EmbeddedSky
    from photoz.sky.sql import SkyDatabase
    from photoz.sky.workers import DrawingPool

    serving: list[EmbeddedSky] = []
    if until is not None:
        # From the start: the one that it serves may be gone before the sky is built.
        threading.Thread(target=_end_after, args=(until, serving), daemon=True).start()
    with closing(DrawingPool(runtime.usable_cores())) as pool:
        population = build_population(galaxies, seed)
        with closing(SkyDatabase(population, row_limit, time_limit_s)) as database:
            pool.begin(population, seed)
            with EmbeddedSky((host, port), identity, database, pool, planned) as server:
                if until is None:
                    # serve_forever runs in this thread, and shutdown waits for it to end.
                    _on_stop_signals(threading.Thread(target=server.shutdown, daemon=True).start)
                serving.append(server)
                ready = {"url": server.url, "galaxies": galaxies, "seed": seed, "simulated": True}
                print(json.dumps(ready), flush=True)
                logger.info("serving %d galaxies at %s (simulated images)", galaxies, server.url)
                server.serve_forever(poll_interval=0.2)


def _end_after(until: Callable[[], object], serving: Sequence[BaseServer]) -> None:
    """Shut the server down once `until` returns; where there is none yet, end the process (its workers see that)."""
    until()
    if not serving:
        os._exit(0)
    serving[0].shutdown()


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
    """SIGINT and a scheduler's signals call this."""

    def handle(number: int, frame: FrameType | None) -> None:
        for later in (signal.SIGINT, *runtime.STOP_SIGNALS):
            signal.signal(later, signal.SIG_IGN)  # once is enough
        stop()

    for number in (signal.SIGINT, *runtime.STOP_SIGNALS):
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
    command = [sys.executable, "-m", "photoz.sky", json.dumps(settings)]
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
    deadline = time.monotonic() + _START_LIMIT_S
    while not select.select([process.stdout], [], [], _POLL_S)[0]:
        runtime.check_stop()
        if time.monotonic() > deadline:
            process.kill()
    line = process.stdout.readline()
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

    Raises BadInput where the address is none or refuses, and TryAgain where no embedded sky answers.
    """
    import requests  # not needed to start a sky

    if url is None:
        identity = SkyIdentity()
        return {"galaxies": identity.galaxies, "seed": identity.seed, "version": identity.version}
    address = f"{url.rstrip('/')}/sky.json"
    for attempt in range(_IDENTITY_TRIES):
        time.sleep(random.uniform(0.5, 1.0) * 0.25 * 2**attempt if attempt else 0.0)
        runtime.check_stop()
        try:
            reply = requests.get(address, timeout=_IDENTITY_TIMEOUT_S)
        except requests.exceptions.InvalidURL as error:
            raise BadInput(f"--survey-url {url}: {error}") from None
        except requests.exceptions.RequestException as error:
            failure = _cause(error)
            continue
        if reply.status_code in (401, 403):
            raise BadInput(f"--survey-url {url}: status {reply.status_code}, it refuses to answer; check the address")
        if reply.status_code not in TRANSIENT_STATUSES:
            try:
                content = reply.json()
                return {key: content[key] for key in ("galaxies", "seed", "version")}
            except (ValueError, KeyError, TypeError):
                failure = "the reply is not that of an embedded sky"
        else:
            failure = f"status {reply.status_code}"
    advice = "check the address, or start one with photoz-job sky serve"
    raise TryAgain(f"--survey-url {url}: no embedded sky answers there ({failure}); {advice}")


def _cause(error: Exception) -> str:
    """The innermost failure's name: NameResolutionError, NewConnectionError, ReadTimeoutError …"""
    inner = error.args[0] if error.args else error
    return type(getattr(inner, "reason", None) or inner).__name__
