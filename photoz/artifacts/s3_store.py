"""A store in an S3-compatible bucket, through boto3 and the standard AWS settings."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import boto3
import botocore.exceptions as aws
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from photoz.artifacts.store import SMALL_BYTES, NoSuchKey, StoredObject, check_small
from photoz.errors import BadInput, TryAgain

_CHUNK = 2**20
_MARK = "photoz-write"
_MISSING = {"NoSuchKey", "404", "NotFound"}
_LOST_RACE = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_DENIED = {
    "AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken",
    "InvalidToken", "AllAccessDisabled", "AccountProblem", "AuthorizationHeaderMalformed",
}  # fmt: skip
_TRANSIENT = {
    "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "ThrottlingException",
    "500", "502", "503", "504", "429", "TooManyRequests", "XMinioServerNotInitialized",
}  # fmt: skip


class S3Store:
    """Keys are object keys below `prefix` in `bucket`."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    @classmethod
    def open(cls, bucket: str, prefix: str) -> "S3Store":
        """Open `s3://bucket/prefix` with credentials, region and endpoint from the AWS variables and files.

        Raises BadInput if the bucket can't be reached with them.
        """
        if not bucket:
            raise BadInput("store 's3://': names no bucket; expected s3://bucket/prefix")
        settings = Config(
            retries={"mode": "standard", "max_attempts": 6},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=16,
            signature_version="s3v4",
        )
        try:
            # A session of its own: the default one keeps the credentials that it first saw.
            client = boto3.Session().client("s3", config=settings)
        except (aws.BotoCoreError, ValueError) as error:
            raise BadInput(f"store s3://{bucket}: {_one_line(error)}; check the AWS settings") from None
        store = cls(client, bucket, prefix.strip("/"))
        with store._calling("the bucket"):
            client.head_bucket(Bucket=bucket)
        return store

    def get(self, key: str, limit: int = SMALL_BYTES) -> bytes:
        with self._calling(key):
            reply = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            data: bytes = reply["Body"].read(limit + 1)
        return check_small(data, limit, f"store {self.url}: {key}")

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        span = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if start or stop is not None else {}
        with self._calling(key):
            reply = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **span)
            for chunk in reply["Body"].iter_chunks(_CHUNK):
                yield memoryview(chunk)

    def put(self, key: str, source: bytes | Path) -> None:
        with self._calling(key):
            if isinstance(source, bytes):
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=source)
            else:
                transfer = TransferConfig(use_threads=False, multipart_threshold=64 * 2**20)
                self._client.upload_file(str(source), self._bucket, self._prefix + key, Config=transfer)

    def create(self, key: str, source: bytes | Path) -> bool:
        # A retry after a lost reply finds our own object in the way. The mark tells it from a twin's, which may
        # hold the very same bytes.
        mark = uuid.uuid4().hex
        place = {"Bucket": self._bucket, "Key": self._prefix + key}
        try:
            with self._calling(key):
                data = source if isinstance(source, bytes) else source.read_bytes()
                self._client.put_object(**place, Body=data, IfNoneMatch="*", Metadata={_MARK: mark})
        except _LostRace:
            try:
                with self._calling(key):
                    found = self._client.head_object(**place)["Metadata"].get(_MARK)
            except NoSuchKey:
                return False
            return bool(found == mark)
        return True

    def list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        with self._calling(prefix):
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    yield StoredObject(key, item["Size"], item["LastModified"].timestamp())

    def delete(self, key: str) -> None:
        with self._calling(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def local_path(self, key: str) -> Path | None:
        return None

    @contextmanager
    def _calling(self, key: str) -> Iterator[None]:
        try:
            yield
        except aws.ClientError as error:
            self._raise(error, key)
        except boto3.exceptions.S3UploadFailedError as error:
            if isinstance(error.__context__, aws.ClientError):
                self._raise(error.__context__, key)
            raise TryAgain(f"store {self.url}: {key}: {_one_line(error)}") from None
        except (aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound) as error:
            raise BadInput(
                f"store {self.url}: {_one_line(error)}; set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        except (aws.ParamValidationError, aws.InvalidRegionError) as error:
            raise BadInput(f"store {self.url}: {_one_line(error)}") from None
        except (aws.HTTPClientError, aws.ConnectionError) as error:
            raise TryAgain(
                f"store {self.url}: {_one_line(error)}; check AWS_ENDPOINT_URL_S3 and the network, then run it again"
            ) from None

    def _raise(self, error: aws.ClientError, key: str) -> NoReturn:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        where = f"store {self.url}: {key}"
        if code in _LOST_RACE:
            raise _LostRace from None
        if code == "NoSuchBucket" or (code in _MISSING and key == "the bucket"):
            raise BadInput(f"{where}: there is no bucket {self._bucket!r}; create it, or correct --store") from None
        if code in _MISSING:
            raise NoSuchKey(key) from None
        if code in _DENIED or status == 403:
            raise BadInput(f"{where}: refused ({code}); check the credentials and the bucket's policy") from None
        if code in _TRANSIENT or status >= 500:
            raise TryAgain(f"{where}: {code} after several tries; run the same command later") from None
        raise BadInput(f"{where}: {_one_line(error)}") from None


class _LostRace(Exception):
    """Another writer created the object first."""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
