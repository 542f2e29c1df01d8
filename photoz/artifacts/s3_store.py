"""A store in an S3-compatible bucket, through the standard AWS settings."""

import base64
import re
import uuid
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any

from photoz.artifacts.s3_connection import Connection, Tries
from photoz.artifacts.s3_failures import WRONG_BYTES, LostRace, PastTheEnd, damaged, strange_reply
from photoz.artifacts.store import SMALL_BYTES, NoSuchKey, StoredObject
from photoz.errors import BadFormat, BadInput, TryAgain
from photoz.retry import Patience

MAX_PUT_BYTES = 5 * 2**30  # S3's limit for one PutObject
_CHUNK = 2**20
_MARK, _CRC32 = "photoz-write", "photoz-crc32"  # metadata of our objects
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class S3Store:
    """Keys are object keys below `prefix` in `bucket`. Every object is written by one PutObject, never in parts."""

    def __init__(self, bucket: str, prefix: str, patience: Patience | None = None) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._connection = Connection(self.url, patience or Patience())
        self.endpoint = self._connection.endpoint

    @classmethod
    def open(cls, bucket: str, prefix: str, patience: Patience | None = None) -> "S3Store":
        """Open `s3://bucket/prefix` with credentials, region and endpoint from the AWS variables and files.

        Raises BadInput if they are wrong or access is refused, TryAgain if no server answers.
        """
        _check_place(bucket, prefix)
        store = cls(bucket, prefix.strip("/"), patience)
        # A listing, not HeadBucket: its refusals carry a reason, and policies often allow it for the prefix only.
        store._page("", None, most=1)
        return store

    def get(self, key: str, limit: int = SMALL_BYTES) -> bytes:
        def read(client: Any) -> bytes:
            # boto3 checks the server's checksum; ours is for servers that keep none (Ceph 16).
            reply = client.get_object(**self._place(key), ChecksumMode="ENABLED")
            with closing(reply["Body"]) as body:
                if _check_object(reply) > limit:
                    raise BadFormat(
                        f"store {self.url}: {key}: more than {limit} bytes; expected a small object, "
                        "remove it or restore a copy"
                    )
                data: bytes = body.read()
            if reply["Metadata"].get(_CRC32) not in (None, _size_and_crc32(data)[1]):
                raise damaged(WRONG_BYTES)
            return data

        return self._connection.call(key, read)

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        if stop is not None and stop <= start:
            return
        buffer = memoryview(bytearray(_CHUNK))
        tries, reached, end, etag = Tries(self._connection, key), start, stop, None
        while end is None or reached < end:
            try:
                with tries as client:
                    reply = self._open(client, key, reached, end)
                    if etag not in (None, reply["ETag"]):
                        raise PastTheEnd
                    etag, end = reply["ETag"], reached + int(reply["ContentLength"])
                    with closing(reply["Body"]) as body:
                        while count := body.readinto(buffer):
                            reached += count
                            tries.progress()
                            yield buffer[:count]
            except PastTheEnd:
                if etag is None:
                    return
                raise TryAgain(f"store {self.url}: {key}: was replaced while it was read; run the job again") from None

    def _open(self, client: Any, key: str, start: int, end: int | None) -> dict[str, Any]:
        """The reply to a GET of the object from `start` up to `end` or its own end, its body still to be read."""
        if start == 0 and end is None:
            reply: dict[str, Any] = client.get_object(**self._place(key))
            _check_object(reply)
            return reply
        span = f"bytes={start}-{'' if end is None else end - 1}"
        reply = client.get_object(**self._place(key), Range=span)
        size, found = _check_object(reply), reply.get("ContentRange", "none")
        total = int(found.rpartition("/")[2]) if found.rpartition("/")[2].isdecimal() else 0
        stop = total if end is None else min(end, total)
        if found != f"bytes {start}-{stop - 1}/{total}" or size != stop - start:
            raise damaged(f"{span} was asked for, the reply has range {found} and {size} bytes")
        return reply

    def put(self, key: str, source: bytes | Path) -> None:
        self._write(key, source)

    def create(self, key: str, source: bytes | Path) -> bool:
        # A try after a lost reply finds our own object in the way. The mark tells it from a twin's, which may
        # hold the very same bytes.
        mark = uuid.uuid4().hex
        try:
            self._write(key, source, {_MARK: mark}, IfNoneMatch="*")
        except LostRace:
            try:
                return self._connection.call(key, lambda client: self._mark(client, key)) == mark
            except NoSuchKey:
                return False
        return True

    def _mark(self, client: Any, key: str) -> str | None:
        reply = client.head_object(**self._place(key))
        _check_object(reply)
        mark: str | None = reply["Metadata"].get(_MARK)
        return mark

    def list(self, prefix: str) -> Iterator[StoredObject]:
        token: str | None = None
        while True:
            page = self._page(prefix, token)
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self._prefix)
                yield StoredObject(key, item["Size"], item["LastModified"].timestamp())
            token = page.get("NextContinuationToken")
            if not page["IsTruncated"]:
                return

    def delete(self, key: str) -> None:
        def delete(client: Any) -> None:
            reply = client.delete_object(**self._place(key))["ResponseMetadata"]
            if "html" in reply["HTTPHeaders"].get("content-type", ""):
                raise strange_reply("HTML for a DELETE")

        self._connection.call(key, delete)

    def local_path(self, key: str) -> Path | None:
        return None

    def _page(self, prefix: str, token: str | None, most: int = 1000) -> dict[str, Any]:
        def ask(client: Any) -> dict[str, Any]:
            going_on = {"ContinuationToken": token} if token else {}
            place = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, "MaxKeys": most}
            page: dict[str, Any] = client.list_objects_v2(**place, **going_on)
            # An HTML page can pass for XML without any Contents, that is for an empty store.
            if "IsTruncated" not in page or (page["IsTruncated"] and not page.get("NextContinuationToken")):
                raise strange_reply("a listing without its end")
            return page

        return self._connection.call(prefix or "the bucket", ask)

    def _write(self, key: str, source: bytes | Path, marks: dict[str, str] | None = None, **options: Any) -> None:
        size, crc = _size_and_crc32(source)
        if size > MAX_PUT_BYTES:
            raise BadInput(
                f"store {self.url}: {key}: {size} bytes, an S3 object written at once has at most {MAX_PUT_BYTES}; "
                "make smaller shards with --samples-per-shard"
            )

        def send(client: Any) -> None:
            with ExitStack() as opened:
                body: bytes | IO[bytes] = (
                    source if isinstance(source, bytes) else opened.enter_context(source.open("rb"))
                )
                # Our own checksum, in a header: boto3's would follow an https body as a trailer in aws-chunked coding,
                # which older servers refuse.
                labels = {_CRC32: crc} | (marks or {})
                reply = client.put_object(**self._place(key), Body=body, ChecksumCRC32=crc, Metadata=labels, **options)
            if "ETag" not in reply:
                raise strange_reply("no ETag for a PUT")

        self._connection.call(key, send)

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}


def _check_place(bucket: str, prefix: str) -> None:
    """BadInput for a URL that names no bucket, or that holds credentials: those are not shown."""
    if "@" in bucket + prefix or ":" in bucket:
        raise BadInput(
            "store s3://…: holds an '@' or ':', as a key and a secret in it would; expected s3://bucket/prefix, and "
            "the credentials in AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not _BUCKET.fullmatch(bucket):
        raise BadInput(f"store 's3://{bucket}': names no bucket; expected s3://bucket/prefix")
    # Servers and proxies differ in what they make of these, and a URL's reader in where it ends.
    parts = prefix.rstrip("/").split("/")
    if any(part in (".", "..") or (not part and len(parts) > 1) for part in parts):
        raise BadInput(f"store {f's3://{bucket}/{prefix}'!r}: holds '.', '..' or nothing between two '/'; leave it out")
    if re.search(r"[#?\ud800-\udfff]", prefix):
        raise BadInput(f"store {f's3://{bucket}/{prefix}'!r}: holds '#', '?' or no UTF-8; name another prefix")


def _check_object(reply: dict[str, Any]) -> int:
    """Content-Length of a GET's reply, which is checked to be an object's."""
    if "ETag" not in reply:
        raise strange_reply("no ETag for a GET")
    if "ContentLength" not in reply:
        raise strange_reply("no Content-Length")
    return int(reply["ContentLength"])


def _size_and_crc32(source: bytes | Path) -> tuple[int, str]:
    """The number of bytes, and their CRC-32 as S3 writes it."""
    size, crc = 0, 0
    if isinstance(source, bytes):
        size, crc = len(source), zlib.crc32(source)
    else:
        buffer = memoryview(bytearray(_CHUNK))
        with source.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                size, crc = size + count, zlib.crc32(buffer[:count], crc)
    return size, base64.b64encode(crc.to_bytes(4, "big")).decode()
