"""Whether a survey can't be reached from this machine at all, as on compute nodes without internet."""

import errno
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies

from urllib3.exceptions import ProxyError

from photoz import runtime
from photoz.errors import BadInput

_NO_ROUTE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EACCES, errno.EPERM}
)
# Nobody listens, or nobody says so: a server may be restarting, or a firewall be in the way.
_MAY_PASS = frozenset({errno.ECONNREFUSED, errno.ETIMEDOUT})
_RESTARTS = 2  # after so many the firewall is more likely


def why_unreachable(error: BaseException, url: str) -> str | None:
    """Why no connection to a server can be made from here, if a later try would find the same; else None.

    Where the connection is to a proxy, that is named.

    Without a name or a route that is so at once; a server that refuses, or that says nothing, has until the job has
    been started again twice.
    """
    why = _why(_first_cause(error))
    if why and any(isinstance(each, ProxyError) for each in _chain(error)):
        proxies = getproxies()
        proxy = proxies.get(urlsplit(url).scheme) or proxies.get("all", "")
        address = proxy.rpartition("://")[2].rpartition("@")[2]  # without a login
        return f"can't be reached through the proxy {address}: {why}"
    return why


def _why(cause: OSError | None) -> str | None:
    if isinstance(cause, socket.gaierror):
        return f"no address is known here for its name ({cause.strerror})"
    if cause is None:
        return None
    number = errno.ETIMEDOUT if isinstance(cause, TimeoutError) else cause.errno
    if number in _NO_ROUTE:
        return f"there is no way to it from here ({cause.strerror})"
    if number in _MAY_PASS and int(runtime.scheduler().get("restarts", 0)) >= _RESTARTS:
        return f"no connection, not after {_RESTARTS} restarts of the job either ({cause.strerror or 'timed out'})"
    return None


def unreachable(url: str, why: str, waited_s: float) -> BadInput:
    """The error for a survey that has never answered this job."""
    parts = urlsplit(url)
    return BadInput(
        f"{parts.hostname}: {why}; tried for {waited_s:.0f} s. If this machine has no internet, run "
        "photoz-job catalog and photoz-job shard with the same settings on one that has (a login node), then submit "
        f"again; or set {parts.scheme}_proxy to your site's proxy"
    )


def _first_cause(error: BaseException | None) -> OSError | None:
    """The system's own error at the bottom of a library's."""
    found: OSError | None = None
    for each in _chain(error):
        if isinstance(each, socket.gaierror | TimeoutError) or (isinstance(each, OSError) and each.errno):
            found = each
    return found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those inside it; HTTP libraries wrap the system's own several times."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        wrapped = [getattr(error, "reason", None), getattr(error, "original_error", None), *error.args]
        inner = [each for each in (*wrapped, error.__cause__, error.__context__) if isinstance(each, BaseException)]
        error = inner[0] if inner else None
