"""The connection to an S3 server: one client of boto3's, and tries that end within a stated budget.

Retries are our own rather than boto3's, so that a scheduler's stop is obeyed while waiting.
"""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.exceptions as aws
from botocore.config import Config

from photoz.artifacts.s3_failures import FAILURES, StaleCredentials, Transient, meaning, one_line
from photoz.errors import BadInput, TryAgain
from photoz.retry import Attempts, Patience

log = logging.getLogger("photoz.artifacts")

T = TypeVar("T")


class Connection:
    """Calls to one S3 server, safe for many threads. `url` names the store in messages."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.url, self.patience = url, patience
        self.answered = False  # whether the server has ever said anything to this process
        self._renewing = threading.Lock()
        self.client = self._connect()
        self.endpoint = one_line(self.client.meta.endpoint_url)

    def call(self, key: str, call: Callable[[Any], T]) -> T:
        """What `call` returns for the client, in as many tries as it takes.

        Raises TryAgain when the budget is spent, BadInput for what no further try can change, and NoSuchKey,
        LostRace or PastTheEnd where the server says so.
        """
        tries = Tries(self, key)
        while True:
            with tries as client:
                return call(client)

    def renew(self, stale: Any) -> None:
        """Connect anew with whatever credentials there are now, unless another thread has done so."""
        with self._renewing:
            if self.client is stale:
                self.client = self._connect()

    def _connect(self) -> Any:
        settings = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=self.patience.connect_s,
            read_timeout=self.patience.read_s,
            max_pool_connections=16,
            signature_version="s3v4",
            # Both asked for by name where they are wanted: put sends its own, streams are verified by their reader.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            # A session of its own: the default one keeps the credentials that it first saw.
            client = boto3.Session().client("s3", config=settings)
        except (aws.BotoCoreError, ValueError) as error:
            raise BadInput(f"store {self.url}: {one_line(error)}; check the AWS settings") from None
        if urlsplit(client.meta.endpoint_url).username is not None:
            raise BadInput(
                f"store {self.url}: the endpoint's URL holds a user's name; put keys into AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY instead"
            )
        return client


class Tries:
    """The tries of one call, each a `with` block: a transient failure is swallowed after a pause, within the budget."""

    def __init__(self, connection: Connection, key: str) -> None:
        self._connection, self._key = connection, key
        self._where = f"store {connection.url}: {key}"
        self._renewed = False
        self._attempts = Attempts(connection.patience)

    def progress(self) -> None:
        """The budget is for a standstill: it begins anew with every part that arrives."""
        self._attempts.restart()

    def __enter__(self) -> Any:
        self._client = self._connection.client
        return self._client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        found: BaseException | None = error
        if isinstance(error, FAILURES):
            found = meaning(error, self._connection.url, self._key, self._connection.patience)
        if not isinstance(found, Transient) or found.answered:
            self._connection.answered = True
        if isinstance(found, Transient):
            self._pause(found)
        elif isinstance(found, StaleCredentials):
            self._look_for_new_credentials(found)
        elif found is not error and found is not None:
            raise found from None
        else:
            return False
        return True

    def _look_for_new_credentials(self, found: StaleCredentials) -> None:
        if self._renewed:
            raise BadInput(
                f"{self._where}: the credentials have expired ({found}), and so have those looked up anew; renew them "
                "(aws sso login, the credentials file), then run the same command again"
            ) from None
        self._renewed = True
        self._connection.renew(self._client)

    def _pause(self, found: Transient) -> None:
        connection, attempts = self._connection, self._attempts
        pause_s = attempts.pause_s(found.after_s, connection.answered)
        if pause_s is None:
            asked = f" and asks to wait {found.after_s:.0f} s" if found.after_s else ""
            raise TryAgain(
                f"{self._where}: {found}{asked}; tried {attempts.failures} times in {attempts.seconds:.0f} s at "
                f"{connection.endpoint}: {found.advice}"
            ) from None
        log.warning("%s: %s; trying again in %.1f s", self._where, found, pause_s)
        connection.patience.sleep(pause_s)
