"""Each fault of an S3 server or of the way to it: what is tried again, what stops at once, and what is said."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from photoz import runtime
from photoz.artifacts.s3_store import MAX_PUT_BYTES, S3Store
from photoz.artifacts.store import NoSuchKey, open_store
from photoz.errors import BadFormat, BadInput, ExitCode, Preempted, TryAgain
from photoz.retry import Patience, retry_after_s
from tests.s3_proxy import Proxy, parse_faults, running_proxy
from tests.seaweedfs import SECRET_KEY

DATA = bytes(range(256)) * 3000


class Clock:
    """Time that passes only where the store waits."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time_s += seconds

    def patience(self, **times: Any) -> Patience:
        return Patience(
            **({"read_s": 5.0, "sleep": self.sleep, "now": lambda: self.time_s, "draw": lambda: 0.5} | times)
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def proxy(s3_endpoint: str, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A fault proxy before the test's bucket; the AWS variables point at it."""
    with running_proxy(s3_endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.url)
        yield running


def opened(url: str, patience: Patience) -> S3Store:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return S3Store.open(bucket, prefix, patience)


@pytest.fixture
def faulty(proxy: Proxy, s3_url: str, clock: Clock) -> S3Store:
    """A store behind the proxy that holds DATA under `k`."""
    store = opened(s3_url, clock.patience())
    store.put("k", DATA)
    proxy.clear()
    return store


def streamed(store: S3Store, key: str = "k", start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(bytes(part) for part in store.stream(key, start, stop))


VERBS: dict[str, tuple[str, Callable[[S3Store], object], object]] = {
    "get": ("GET", lambda store: store.get("k") == DATA, True),
    "stream": ("GET", lambda store: streamed(store) == DATA, True),
    "put": ("PUT", lambda store: store.put("new", b"new"), None),
    "create": ("PUT", lambda store: store.create("new", b"new"), True),
    "list": ("GET", lambda store: [item.key for item in store.list("")], ["k"]),
    "delete": ("DELETE", lambda store: store.delete("k"), None),
}


@pytest.mark.real
@pytest.mark.parametrize("kind", ["429", "500", "503", "html", "reset", "lost", "timeout"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_transient_fault_is_survived(kind: str, verb: str, faulty: S3Store, proxy: Proxy, clock: Clock) -> None:
    method, call, expected = VERBS[verb]
    proxy.plan(kind, method)
    assert call(faulty) == expected
    assert proxy.counts == {kind: 1}
    assert len(clock.pauses) == 1
    keys = {item.key for item in faulty.list("")}
    assert keys == {"put": {"k", "new"}, "create": {"k", "new"}, "delete": set()}.get(verb, {"k"})


@pytest.mark.real
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("429", r"TooManyRequests \(429\)"),
        ("500", r"InternalError \(500\)"),
        ("503", r"SlowDown \(503\)"),
        ("html", "no S3 server's"),
        ("reset", "closed before a reply"),
    ],
)
def test_a_fault_that_stays_ends_within_the_budget_and_says_what_was_tried(
    kind: str, said: str, faulty: S3Store, proxy: Proxy, clock: Clock
) -> None:
    proxy.plan(kind, times=10_000)
    with pytest.raises(
        TryAgain, match=rf"store s3://test-\S*: k: .*{said}.*; tried \d+ times in \d+ s at http"
    ) as caught:
        faulty.get("k")
    assert caught.value.exit_code == ExitCode.TRY_AGAIN
    assert "\n" not in str(caught.value) and "run the same command again" in str(caught.value)
    assert 90 < clock.time_s <= 120
    assert proxy.counts[kind] == len(clock.pauses) + 1
    if kind != "429":  # which names its own wait
        assert clock.pauses[0] < 1 < clock.pauses[-1] <= 20


@pytest.mark.real
def test_a_server_says_how_long_to_wait_and_is_obeyed(faulty: S3Store, proxy: Proxy, clock: Clock) -> None:
    proxy.plan("429", times=3)
    faulty.get("k")
    assert clock.pauses == [1.5, 1.5, 1.5]  # Retry-After: 1, and half a second by the dice


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("7", 7.0),
        ("Mon, 23 Nov 2026 00:00:10 GMT", 10.0),
        ("Sun, 22 Nov 2026 00:00:00 GMT", 0.0),
        ("soon", None),
        (None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, expected: float | None) -> None:
    assert retry_after_s(header, wall=1795392000.0) == expected


@pytest.mark.real
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("denied", "refused \\(AccessDenied\\); check the credentials and the bucket's policy"),
        (
            "skew",
            r"refused \(RequestTimeTooSkewed\): this machine's clock is 1[12]\d\d s ahead of the store's; set this",
        ),
        ("expired", r"credentials have expired \(ExpiredToken\).*renew them"),
    ],
)
@pytest.mark.parametrize("verb", VERBS)
def test_a_permanent_fault_stops_at_once_with_one_line(
    kind: str, said: str, verb: str, faulty: S3Store, proxy: Proxy, clock: Clock
) -> None:
    proxy.plan(kind, VERBS[verb][0], times=100)
    with pytest.raises(BadInput, match=said) as caught:
        VERBS[verb][1](faulty)
    assert "\n" not in str(caught.value)
    assert clock.pauses == []
    assert proxy.counts == {kind: 2 if kind == "expired" else 1}  # new credentials are looked for once


@pytest.mark.real
def test_credentials_renewed_in_mid_run_are_picked_up(
    faulty: S3Store, proxy: Proxy, s3_url: str, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    key = os.environ["AWS_ACCESS_KEY_ID"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET_KEY}\n")
    store = opened(s3_url, clock.patience())
    store.get("k")
    file.write_text(file.read_text() + "aws_session_token = renewed\n")
    proxy.clear()
    proxy.plan("expired")
    with pytest.raises(BadInput, match="credentials"):
        store.get("k")  # the server knows no such token: the new file was read, and then refused
    assert [headers.get("x-amz-security-token") for *_, headers in proxy.requests] == [None, "renewed"]
    file.write_text(file.read_text().replace("aws_session_token = renewed\n", ""))
    proxy.plan("expired")
    assert store.get("k") == DATA


@pytest.mark.real
@pytest.mark.parametrize("verb", ["get", "stream"])
def test_a_reply_cut_short_is_asked_for_again(verb: str, faulty: S3Store, proxy: Proxy) -> None:
    proxy.plan("truncated", "GET", times=3)
    assert VERBS[verb][1](faulty) is True
    assert proxy.counts == {"truncated": 3}


@pytest.mark.real
def test_a_stream_goes_on_from_the_byte_that_it_reached(faulty: S3Store, proxy: Proxy, clock: Clock) -> None:
    proxy.plan("truncated", "GET", times=2)
    assert streamed(faulty, "k", 10, len(DATA) - 5) == DATA[10:-5]
    spans = [headers["range"] for _, _, headers in proxy.requests]
    starts = [int(span.removeprefix("bytes=").split("-")[0]) for span in spans]
    assert starts[0] == 10 < starts[1] < starts[2]
    assert {span.split("-")[1] for span in spans} == {str(len(DATA) - 6)}


@pytest.mark.real
def test_the_budget_is_for_a_standstill_not_for_a_long_stream(faulty: S3Store, proxy: Proxy, clock: Clock) -> None:
    body = os.urandom(2**22)
    faulty.put("long", body)
    slow = opened(faulty.url, clock.patience(budget_s=2.0, first_contact_s=2.0))
    proxy.plan("truncated", "GET", times=12)
    assert streamed(slow, "long") == body
    assert clock.time_s > 2.0


@pytest.mark.real
def test_an_object_replaced_while_it_is_read_is_not_pieced_together(faulty: S3Store, proxy: Proxy) -> None:
    for replacement in (DATA[::-1], b"shorter"):
        faulty.put("k", DATA)
        proxy.plan("truncated", "GET")
        parts = faulty.stream("k")
        next(parts)
        faulty.put("k", replacement)
        with pytest.raises(TryAgain, match="was replaced while it was read"):
            list(parts)


@pytest.mark.real
def test_a_reply_to_another_range_is_not_taken(faulty: S3Store, proxy: Proxy) -> None:
    proxy.plan("short", "GET")
    assert streamed(faulty, "k", 100, 5000) == DATA[100:5000]
    assert proxy.counts == {"short": 1}


@pytest.mark.real
def test_a_stream_without_its_end_is_left_to_the_reader_to_see(faulty: S3Store, proxy: Proxy) -> None:
    """Shorter, and announced as such: only the manifest's size and digest tell. The reader checks those."""
    proxy.plan("short", "GET")
    assert streamed(faulty) == DATA[: len(DATA) // 2]


@pytest.mark.real
@pytest.mark.parametrize("kind", ["flipped", "short"])
def test_a_damaged_small_object_is_found_by_its_checksum_and_read_again(
    kind: str, faulty: S3Store, proxy: Proxy
) -> None:
    proxy.plan(kind, "GET")
    assert faulty.get("k") == DATA
    assert proxy.counts == {kind: 1}
    proxy.plan(kind, "GET", times=1000)
    with pytest.raises(TryAgain, match="don't fit its checksum"):
        faulty.get("k")


@pytest.mark.real
def test_our_own_checksum_finds_damage_where_the_server_keeps_none(faulty: S3Store, s3_url: str) -> None:
    """As Ceph 16 does: neither stored nor sent back."""
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    plain = boto3.client("s3", config=Config(request_checksum_calculation="when_required"))
    place = {"Bucket": bucket, "Key": f"{prefix}/k"}
    labels = plain.head_object(**place)["Metadata"]
    plain.put_object(**place, Body=DATA[:-1] + b"!", Metadata=labels)
    with pytest.raises(TryAgain, match="don't fit its checksum"):
        faulty.get("k")
    plain.put_object(**place, Body=DATA, Metadata=labels)
    assert faulty.get("k") == DATA


@pytest.mark.real
@pytest.mark.parametrize("verb", ["put", "create"])
def test_an_upload_damaged_on_the_way_is_refused_by_the_server_and_sent_again(
    verb: str, faulty: S3Store, proxy: Proxy, clock: Clock, tmp_path: Path
) -> None:
    source = tmp_path / "file"
    source.write_bytes(DATA)
    for number, body in enumerate((DATA, source)):
        proxy.plan("flipped_upload", "PUT")
        getattr(faulty, verb)(f"up{number}", body)
        assert faulty.get(f"up{number}") == DATA
    assert proxy.counts == {"flipped_upload": 2}
    assert len(clock.pauses) == 2


@pytest.mark.real
def test_create_knows_its_own_write_after_a_lost_reply_and_a_twins_too(
    faulty: S3Store, proxy: Proxy, tmp_path: Path
) -> None:
    source = tmp_path / "file"
    source.write_bytes(DATA)
    for number, body in enumerate((b"bytes", source)):
        proxy.plan("lost", "PUT")
        assert faulty.create(f"new{number}", body) is True
        proxy.plan("lost", "PUT")
        assert faulty.create(f"new{number}", body) is False
        # And if what asks whose it is meets an HTML page: that is no answer.
        proxy.plan("lost", "PUT", "again")
        proxy.plan("html", "HEAD")
        assert faulty.create(f"again{number}", body) is True
    assert proxy.counts == {"lost": 6, "html": 2}


@pytest.mark.real
def test_a_stop_ends_the_waiting(faulty: S3Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(faulty.url, Patience(draw=lambda: 200.0))  # a pause of 80 s
    monkeypatch.setattr(runtime, "_stop_signal", [])
    proxy.plan("503", times=1000)
    previous = signal.signal(signal.SIGALRM, runtime._note_stop)
    signal.setitimer(signal.ITIMER_REAL, 1.2)
    began = time.monotonic()
    try:
        with pytest.raises(Preempted):
            store.get("k")
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert time.monotonic() - began < 20


@pytest.mark.real
def test_connections_are_used_again_after_whole_streams(faulty: S3Store, proxy: Proxy) -> None:
    before = proxy.connections
    for _ in range(5):
        streamed(faulty)
        faulty.get("k")
    assert proxy.connections == before


@pytest.mark.real
def test_empty_ranges_and_those_behind_the_end_have_no_bytes(faulty: S3Store) -> None:
    faulty.put("empty", b"")
    assert streamed(faulty, "empty") == streamed(faulty, "empty", 0, 5) == streamed(faulty, "k", 7, 7) == b""
    assert streamed(faulty, "k", len(DATA)) == b""
    with pytest.raises(NoSuchKey):
        streamed(faulty, "none", 3)


@pytest.mark.real
def test_a_large_object_is_refused_before_it_is_read(faulty: S3Store, proxy: Proxy) -> None:
    with pytest.raises(BadFormat, match="more than 1000 bytes"):
        faulty.get("k", limit=1000)


def test_an_object_too_large_for_one_put_is_refused_with_the_flag_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photoz.artifacts.s3_store.MAX_PUT_BYTES", 999)
    (tmp_path / "large").write_bytes(bytes(1000))
    with pytest.raises(BadInput, match=r"1000 bytes.*--samples-per-shard"):
        S3Store("bucket", "prefix").put("large", tmp_path / "large")
    assert MAX_PUT_BYTES == 5 * 2**30


@pytest.mark.real
def test_what_is_sent_has_a_checksum_in_a_header_and_no_chunked_coding(
    faulty: S3Store, proxy: Proxy, tmp_path: Path
) -> None:
    source = tmp_path / "file"
    source.write_bytes(DATA)
    faulty.put("a", DATA)
    faulty.put("b", source)
    for _, _, headers in proxy.requests:
        assert headers["x-amz-checksum-crc32"] == base64.b64encode(zlib.crc32(DATA).to_bytes(4, "big")).decode()
        assert len(headers["x-amz-content-sha256"]) == 64
        assert "content-encoding" not in headers and "x-amz-trailer" not in headers


def test_a_server_that_never_answers_is_given_up_sooner(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    set_endpoint(monkeypatch, f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(TryAgain, match=r"no connection \(Connection refused\); tried \d+ times.*AWS_ENDPOINT_URL_S3"):
        opened("s3://bucket/x", clock.patience())
    assert 15 < clock.time_s <= 25


def test_a_host_without_an_address_is_named(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    set_endpoint(monkeypatch, "http://no-such-host.invalid")
    with pytest.raises(TryAgain, match=r"no address is known for the host 'no-such-host\.invalid' \(DNS\)"):
        opened("s3://bucket/x", clock.patience())


def set_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAX:hidden-secret@bucket/x",
        "s3://AKIAX:hidden/secret@bucket/x",
        "s3://AKIAX:hidden-secret/x",
        "s3://k@b/x",
    ],
)
def test_a_store_url_with_credentials_is_refused_without_showing_them(url: str) -> None:
    with pytest.raises(BadInput, match="AWS_SECRET_ACCESS_KEY") as caught:
        open_store(url)
    assert "hidden" not in str(caught.value) and "secret@" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint", ["http://user:hidden-secret@127.0.0.1:1", "http://user:hidden-secret@[bad", "user:hidden-secret@host"]
)
def test_an_endpoint_with_credentials_is_refused_without_showing_them(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_endpoint(monkeypatch, endpoint)
    with pytest.raises(BadInput) as caught:
        open_store("s3://bucket/x")
    assert "hidden" not in str(caught.value)


@pytest.mark.real
def test_no_message_holds_a_secret(proxy: Proxy, s3_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hidden-token")
    for kind in (None, "denied", "expired", "skew", "503", "reset", "html"):
        proxy.clear()
        if kind:
            proxy.plan(kind, times=1000)
        with pytest.raises((BadInput, TryAgain)) as caught:
            opened(s3_url, clock.patience())
        assert "hidden" not in str(caught.value)


def test_faults_are_given_as_kinds_and_rates() -> None:
    assert parse_faults("503=0.5,lost=0.25") == {"503": 0.5, "lost": 0.25}
    assert parse_faults("") == {}


def test_the_proxy_as_a_program_says_where_it_is_and_what_it_did(tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    options = ["--upstream", "http://127.0.0.1:1", "--faults", "503=1", "--seed", "3", "--counts", str(counts)]
    command = [sys.executable, "-m", "tests.s3_proxy", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        with pytest.raises(urllib.error.HTTPError, match="503") as reply:
            urllib.request.urlopen(json.loads(program.stdout.readline())["url"], timeout=60)
        reply.value.close()
        program.terminate()
        assert program.wait(60) == 0
    assert json.loads(counts.read_text()) == {"requests": 1, "503": 1}


@pytest.mark.real
def test_random_faults_lose_nothing(
    s3_endpoint: str, s3_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {
        "503": 0.05,
        "500": 0.05,
        "reset": 0.05,
        "lost": 0.1,
        "truncated": 0.05,
        "html": 0.05,
        "flipped_upload": 0.05,
    }
    with running_proxy(s3_endpoint, faults, seed=7) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.url)
        store = opened(s3_url, clock.patience())
        for number in range(40):
            assert store.create(f"c{number}", b"%d" % number) is True
            assert store.create(f"c{number}", b"other") is False
            store.put(f"p{number}", DATA[:number])
        assert running.counts.total() > 10
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    plain = boto3.client("s3")
    bucket = s3_url.removeprefix("s3://").partition("/")[0]
    for number in range(40):
        assert plain.get_object(Bucket=bucket, Key=f"some/prefix/c{number}")["Body"].read() == b"%d" % number
        assert plain.get_object(Bucket=bucket, Key=f"some/prefix/p{number}")["Body"].read() == DATA[:number]
