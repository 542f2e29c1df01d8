"""Cutouts over HTTP against a server that misbehaves on real sockets."""

import io
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from PIL import Image

from photoz.errors import BadInput, Preempted, TryAgain
from photoz.images.picture import NoCutout
from photoz.retry import Patience
from photoz.surveys.sdss import jpeg as cutouts
from photoz.surveys.sdss.jpeg import CutoutService, fetch_cutouts
from photoz.surveys.sdss.sky_jpeg import check_jpeg
from tests.cutout_server import DRIP, HANG_UP, RESET, CutoutServer, cut_short, cutout_server, good, in_chunks, reply
from tests.shards_support import flat_jpeg, noise_jpeg

Answer = Callable[[float, int], bytes]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutouts, "BACKOFF", Patience(budget_s=0.0, longest_pause_s=0.02))


def service(server: CutoutServer, **changes: float | None) -> CutoutService:
    base = CutoutService(base_url=server.url, size_px=64, scale_arcsec_per_px=0.4, patience_s=5)
    return replace(base, **changes)  # type: ignore[arg-type]


def positions(count: int) -> list[tuple[float, float]]:
    return [(i + 0.5, 0.0) for i in range(count)]


def one_bad(ra: float, fault: Callable[[int], bytes]) -> Answer:
    """Position `ra` answers `fault(nth)`, all others well."""
    return lambda asked_ra, nth: fault(nth) if asked_ra == ra else good(asked_ra)


def reasons(replies: Iterator[bytes | NoCutout]) -> list[str]:
    return ["ok" if isinstance(found, bytes) else found.reason for found in replies]


def test_cutouts_come_in_order_over_few_connections_that_are_used_again() -> None:
    with cutout_server(lambda ra, nth: good(ra)) as server:
        found = list(fetch_cutouts(service(server), positions(300)))
        assert found == [noise_jpeg(int(ra * 1000)) for ra, _ in positions(300)]
        assert server.connections <= 8
        assert server.together <= 8


def test_a_reply_in_chunks_is_read_whole() -> None:
    with cutout_server(lambda ra, nth: in_chunks(ra)) as server:
        found = list(fetch_cutouts(service(server), positions(3)))
        assert found == [noise_jpeg(int(ra * 1000)) for ra, _ in positions(3)]


def test_only_a_few_cutouts_are_held_at_a_time() -> None:
    with cutout_server(lambda ra, nth: good(ra)) as server:
        stream = fetch_cutouts(service(server), positions(2000))
        next(stream)
        time.sleep(0.5)
        assert sum(server.asked.values()) <= cutouts.AHEAD + 1
        stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "fault",
    [
        lambda ra: RESET,
        lambda ra: HANG_UP,
        cut_short,
        lambda ra: in_chunks(ra)[:-200] + HANG_UP,
        lambda ra: reply(b"busy", "503 Service Unavailable"),
        lambda ra: reply(b"", "429 Too Many Requests"),
        lambda ra: reply(b"oops", "500 Internal Server Error"),
        lambda ra: reply(b"", "502 Bad Gateway"),
        lambda ra: reply(b"", "504 Gateway Timeout"),
        lambda ra: reply(b"<html>Down for maintenance</html>"),
        lambda ra: reply(noise_jpeg(1)[:-900]),
        lambda ra: reply(b""),
        lambda ra: b"nonsense\r\n\r\n" + HANG_UP,
    ],
    ids=[
        "reset",
        "hang up",
        "cut short",
        "chunks cut short",
        "503",
        "429",
        "500",
        "502",
        "504",
        "html",
        "half a jpeg",
        "empty",
        "garbage",
    ],
)
def test_a_transient_failure_is_retried_until_the_cutout_comes(fault: Callable[[float], bytes]) -> None:
    with cutout_server(lambda ra, nth: fault(ra) if nth < 3 else good(ra)) as server:
        assert reasons(fetch_cutouts(service(server), positions(12))) == ["ok"] * 12
        assert set(server.asked.values()) == {4}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (reply(b"no such place", "404 Not Found"), "http_404"),
        (reply(b"bad ra", "400 Bad Request"), "http_400"),
        (reply(noise_jpeg(1, 65)), "wrong_size"),
        (reply(noise_jpeg(1, 64, "L")), "not_colour"),
        (reply(flat_jpeg(64)), "blank"),
    ],
)
def test_a_failure_that_will_stay_is_not_asked_for_again(raw: bytes, reason: str) -> None:
    with cutout_server(one_bad(3.5, lambda nth: raw)) as server:
        found = reasons(fetch_cutouts(service(server), positions(10)))
        assert found == ["ok"] * 3 + [reason] + ["ok"] * 6
        assert server.asked[3.5] == 1


def test_one_position_that_always_breaks_the_server_is_given_up_while_others_are_served() -> None:
    broken = reply(b"NullReferenceException", "500 Internal Server Error")
    with cutout_server(one_bad(3.5, lambda nth: broken)) as server:
        found = list(fetch_cutouts(service(server), positions(50)))
        assert isinstance(found[3], NoCutout) and found[3].reason == "http_500"
        assert "NullReferenceException" in found[3].detail
        assert server.asked[3.5] == cutouts.TRIES


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable"])
def test_a_server_that_is_down_for_all_means_try_again_not_failures(status: str) -> None:
    with (
        cutout_server(lambda ra, nth: reply(b"down", status)) as server,
        pytest.raises(TryAgain, match=r"http_50\d: down; .*run the same command later"),
    ):
        list(fetch_cutouts(service(server, patience_s=0.3), positions(20)))


def test_an_unavailable_position_among_good_ones_is_never_given_up_as_a_failure() -> None:
    with (
        cutout_server(one_bad(3.5, lambda nth: reply(b"", "503 Service Unavailable"))) as server,
        pytest.raises(TryAgain),
    ):
        list(fetch_cutouts(service(server, patience_s=0.5), positions(20)))


def test_nobody_listening_means_try_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    nowhere = CutoutService(base_url=f"http://127.0.0.1:{port}", size_px=64, scale_arcsec_per_px=0.4, patience_s=0.2)
    with pytest.raises(TryAgain, match="refused"):
        list(fetch_cutouts(nowhere, positions(2)))


@pytest.mark.parametrize("asked", ["1", formatdate(time.time() + 3, usegmt=True)], ids=["seconds", "date"])
def test_retry_after_is_kept_by_all_connections(asked: str) -> None:
    busy = reply(
        b"", "429 Too Many Requests", Retry_After=asked if asked == "1" else formatdate(time.time() + 3, usegmt=True)
    )
    with cutout_server(one_bad(0.5, lambda nth: busy if nth == 0 else good(0.5))) as server:
        assert reasons(fetch_cutouts(service(server, connections=1), positions(5))) == ["ok"] * 5
        assert server.times[1] - server.times[0] >= 0.9


def test_retry_after_beyond_the_patience_means_try_again_at_once() -> None:
    busy = reply(b"", "503 Service Unavailable", Retry_After="3600")
    started = time.monotonic()
    with cutout_server(lambda ra, nth: busy) as server, pytest.raises(TryAgain, match="3600 s"):
        list(fetch_cutouts(service(server), positions(3)))
    assert time.monotonic() - started < 3


def test_the_politeness_limit_holds_over_all_connections() -> None:
    with cutout_server(lambda ra, nth: good(ra)) as server:
        list(fetch_cutouts(service(server, requests_per_s=50), positions(40)))
        assert max(server.times) - min(server.times) >= 39 / 50 * 0.9


@pytest.mark.parametrize("status", ["302 Found", "405 Method Not Allowed"])
def test_a_service_that_refuses_altogether_is_bad_input(status: str) -> None:
    with (
        cutout_server(lambda ra, nth: reply(b"no", status, Location="https://elsewhere.example/")) as server,
        pytest.raises(BadInput, match=f"status {status[:3]} to https://elsewhere.example/"),
    ):
        list(fetch_cutouts(service(server), positions(3)))


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_service_that_does_not_want_us_is_asked_once_and_named(status: str) -> None:
    with (
        cutout_server(lambda ra, nth: reply(b"no", status)) as server,
        pytest.raises(BadInput, match=f"status {status[:3]} .*refuses to answer this machine; check --survey-url"),
    ):
        list(fetch_cutouts(service(server, connections=1), positions(3)))
    assert set(server.asked.values()) == {1}


def test_a_wrong_address_is_noticed_before_all_galaxies_are_asked_for() -> None:
    with (
        cutout_server(lambda ra, nth: reply(b"no such page", "404 Not Found")) as server,
        pytest.raises(BadInput, match=r"50 galaxies in a row without a cutout .*http_404.*none before"),
    ):
        list(fetch_cutouts(service(server), positions(5000)))
    assert sum(server.asked.values()) < 500


def test_a_field_mostly_off_the_footprint_is_asked_for_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutouts, "BLANKS", 100)
    with cutout_server(lambda ra, nth: reply(flat_jpeg(64)) if ra < 80 else good(ra)) as server:
        assert reasons(fetch_cutouts(service(server), positions(90))) == ["blank"] * 80 + ["ok"] * 10
    with (
        cutout_server(lambda ra, nth: reply(flat_jpeg(64))) as server,
        pytest.raises(BadInput, match=r"100 galaxies in a row .*where the galaxies are"),
    ):
        list(fetch_cutouts(service(server), positions(200)))


def test_a_survey_that_turns_to_sending_messages_for_sky_means_try_again() -> None:
    with (
        cutout_server(lambda ra, nth: good(ra) if ra < 100 else reply(flat_jpeg(64))) as server,
        pytest.raises(TryAgain, match=r"50 galaxies in a row .*the survey seems to fail"),
    ):
        list(fetch_cutouts(service(server), positions(200)))


def is_sky(data: bytes, size_px: int) -> bool:
    try:
        check_jpeg(data, size_px)
    except NoCutout as fault:
        assert fault.reason == "blank"
        return False
    return True


def test_of_1500_real_cutouts_only_the_survey_s_error_message_is_not_sky(shared_data: Path) -> None:
    with tarfile.open(shared_data / "sdss_jpegs" / "jpegs.tar") as tar:
        pictures = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    # "getFrames() has failed … Exception Message: Parameter is not valid."
    (message,) = [name for name, data in pictures.items() if not is_sky(data, 423)]
    assert message == "587729387686002878.jpeg"
    for size_px in (64, 96, 128, 192, 256, 320):
        sink = io.BytesIO()
        with Image.open(io.BytesIO(pictures[message])) as picture:
            picture.crop((0, 0, size_px, size_px)).save(sink, "JPEG", quality=75)
        assert not is_sky(sink.getvalue(), size_px)


def test_a_reply_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutouts, "REPLY_LIMIT_S", 0.3)
    with cutout_server(one_bad(1.5, lambda nth: good(1.5) if nth else good(1.5)[:200] + DRIP)) as server:
        assert reasons(fetch_cutouts(service(server), positions(3))) == ["ok"] * 3


def test_a_reply_that_is_far_too_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutouts, "MAX_REPLY_BYTES", 100_000)
    with (
        cutout_server(lambda ra, nth: reply(bytes(10**7))) as server,
        pytest.raises(TryAgain, match="too_slow_or_long"),
    ):
        list(fetch_cutouts(service(server, patience_s=0.2), positions(1)))


def test_a_stop_signal_ends_the_wait_for_a_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def check_stop() -> None:
        if stop.is_set():
            raise Preempted("stopped")

    monkeypatch.setattr("photoz.ordered.check_stop", check_stop)
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    with (
        cutout_server(lambda ra, nth: reply(b"", "503 Service Unavailable", Retry_After="30")) as server,
        pytest.raises(Preempted),
    ):
        list(fetch_cutouts(service(server, patience_s=60), positions(30)))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("url", ["skyserver.sdss.org", "ftp://skyserver.sdss.org", "http://"])
def test_an_address_that_is_none_is_bad_input(url: str) -> None:
    with pytest.raises(BadInput, match="expected http"):
        list(fetch_cutouts(CutoutService(base_url=url, size_px=64, scale_arcsec_per_px=0.4), positions(1)))


def test_the_machine_s_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with cutout_server(lambda ra, nth: good(ra)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:secret@"))
        monkeypatch.delenv("no_proxy", raising=False)
        outside = CutoutService(base_url="http://skyserver.example", size_px=64, scale_arcsec_per_px=0.4)
        assert reasons(fetch_cutouts(outside, positions(2))) == ["ok"] * 2
        assert proxy.asked.total() == 2
