"""What an S3 server's refusals and broken replies mean: which to try again, which to stop at, and what to say."""

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import botocore.exceptions as aws
import urllib3.exceptions as http
from botocore.parsers import ResponseParserError

from photoz.artifacts.store import NoSuchKey
from photoz.errors import BadInput
from photoz.retry import TRANSIENT_STATUSES, Patience, http_date, retry_after_s

FAILURES = (aws.ClientError, aws.BotoCoreError, ResponseParserError, http.HTTPError)

WRONG_BYTES = "the reply's bytes don't fit its checksum"
_NETWORK = "check AWS_ENDPOINT_URL_S3 and the network, then run the same command again"
_BUSY = "the store is busy or partly down: run the same command again later"
_DAMAGED = "check what lies between here and the store (a proxy?), then run the same command again"

_TRANSIENT_CODES = frozenset({
    "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "ThrottlingException",
    "TooManyRequests", "RequestLimitExceeded", "BandwidthLimitExceeded", "XMinioServerNotInitialized",
    "ConditionalRequestConflict", "OperationAborted",  # two writers of one key at once: the next try finds out who won
})  # fmt: skip
_DAMAGED_CODES = frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"})
_STALE_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"})
_DENIED_CODES = frozenset({
    "AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled",
    "AccountProblem", "AuthorizationHeaderMalformed", "401", "Unauthorized",
})  # fmt: skip
_MISSING_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
_NO_CREDENTIALS = (aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound)


class Transient(Exception):
    """A failure worth another try; `answered` if the server said anything at all."""

    def __init__(self, reason: str, advice: str, *, answered: bool = True, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.advice, self.answered, self.after_s = advice, answered, after_s


class LostRace(Exception):
    """There is an object under the key already."""


class PastTheEnd(Exception):
    """The range asked for begins behind the object's last byte."""


class StaleCredentials(Exception):
    """The credentials have run out; new ones may lie where these came from."""


def strange_reply(what: str) -> Transient:
    """A reply with status 200 that is not what an S3 server says, such as a proxy's HTML page."""
    return Transient(f"a reply that is no S3 server's ({what}; a proxy's or a console's web page?)", _NETWORK)


def damaged(what: str) -> Transient:
    """A reply whose length or bytes are not those asked for or announced."""
    return Transient(what, _DAMAGED)


def meaning(error: Exception, url: str, key: str, patience: Patience) -> Exception:
    """The exception to raise for one of FAILURES: Transient, NoSuchKey, LostRace, …, or BadInput with one line."""
    where = f"store {url}: {key}"
    if isinstance(error, aws.ClientError):
        return _refusal(error, url, where, patience)
    transient = _broken(error, patience)
    if transient:
        return transient
    if isinstance(error, aws.SSLError):
        return BadInput(
            f"{where}: the server's certificate or TLS is refused ({_tls_reason(error)}); verification "
            "is never off: name your own CA's file in AWS_CA_BUNDLE, or correct AWS_ENDPOINT_URL_S3"
        )
    if isinstance(error, _NO_CREDENTIALS):
        return BadInput(f"{where}: {one_line(error)}; set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return BadInput(f"{where}: {one_line(error)}; check the AWS settings")


def _broken(error: Exception, patience: Patience) -> Transient | None:
    """A connection that failed or a reply that can't be read; None for what another try would not change."""
    if isinstance(error, aws.EndpointConnectionError | aws.ProxyConnectionError):
        return Transient(_unreachable(error), _NETWORK, answered=False)
    if isinstance(error, aws.ConnectTimeoutError):
        return Transient(f"no connection within {patience.connect_s:g} s", _NETWORK, answered=False)
    if isinstance(error, aws.ReadTimeoutError | http.ReadTimeoutError):
        return Transient(f"no reply within {patience.read_s:g} s", _NETWORK, answered=False)
    if isinstance(error, aws.ConnectionClosedError):
        return Transient("the connection was closed before a reply", _NETWORK, answered=False)
    if isinstance(error, aws.ResponseStreamingError | aws.IncompleteReadError | http.ProtocolError | http.SSLError):
        return Transient("the reply was cut short", _NETWORK)
    if isinstance(error, aws.FlexibleChecksumError):
        return damaged(WRONG_BYTES)
    if isinstance(error, ResponseParserError):
        return strange_reply("no S3 XML")
    if isinstance(error, aws.SSLError) and "EOF" in str(error):
        return Transient("the connection was closed before TLS was set up", _NETWORK, answered=False)
    return None


def _unreachable(error: aws.BotoCoreError) -> str:
    cause = error.kwargs.get("error")
    if isinstance(cause, http.NameResolutionError):
        host = urllib.parse.urlsplit(str(error.kwargs.get("endpoint_url", ""))).hostname
        return f"no address is known for the host {host!r} (DNS)"
    system = getattr(cause, "__cause__", None)
    return f"no connection ({getattr(system, 'strerror', None) or type(cause or error).__name__})"


def _tls_reason(error: aws.SSLError) -> str:
    text = one_line(error)
    found = re.search(r"certificate verify failed: ([^(]*)", text) or re.search(r"\[SSL: (\w+)\]", text)
    return found[1].strip() if found else text


def _refusal(error: aws.ClientError, url: str, where: str, patience: Patience) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    reply: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
    status, headers = reply.get("HTTPStatusCode", 0), reply.get("HTTPHeaders", {})
    if code in {"PreconditionFailed", "412"}:
        return LostRace(code)
    if code in {"InvalidRange", "416"}:
        return PastTheEnd(code)
    if code in _MISSING_CODES and error.operation_name in ("GetObject", "HeadObject"):
        return NoSuchKey(code)
    if code == "NoSuchBucket" or code in _MISSING_CODES:
        bucket = urllib.parse.urlsplit(url).netloc
        return BadInput(f"{where}: there is no bucket {bucket!r}; create it, or correct --store")
    if code in _STALE_CODES or (error.operation_name == "HeadObject" and status == 400):
        return StaleCredentials(code)
    if code in _DAMAGED_CODES:
        return Transient(f"{code}: the bytes sent were not those that arrived", _DAMAGED)
    if code in _TRANSIENT_CODES or status in TRANSIENT_STATUSES:
        name = code if code == str(status) else f"{code} ({status})"
        after_s = retry_after_s(headers.get("retry-after"), patience.wall())
        return Transient(f"the server answers {name}", _BUSY, after_s=after_s)
    return BadInput(f"{where}: {_permanent(error, code, status, headers, patience)}")


def _permanent(error: aws.ClientError, code: str, status: int, headers: Mapping[str, str], patience: Patience) -> str:
    if code == "RequestTimeTooSkewed":
        return f"refused ({code}): {_skew(headers, patience)}; set this machine's clock (NTP)"
    if code in _DENIED_CODES or status in (401, 403):
        return f"refused ({code}); check the credentials and the bucket's policy"
    if code == "NotImplemented" or status == 501:
        return f"the server can't do this ({code}); see docs/stores.md for servers known to work"
    return f"{one_line(error)}; check AWS_REGION, AWS_ENDPOINT_URL_S3 and --store"


def _skew(headers: Mapping[str, str], patience: Patience) -> str:
    theirs = http_date(headers.get("date"))
    if theirs is None:
        return "this machine's clock is far from the store's"
    ahead_s = patience.wall() - theirs
    return f"this machine's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the store's"


def one_line(error: BaseException | str) -> str:
    """The text in one line, without a user's name and password in any URL."""
    return re.sub(r"[^/@\s]+@", "…@", " ".join(str(error).split()))
