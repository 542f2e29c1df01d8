"""Whether a survey can't be reached from this machine at all, as on compute nodes without internet."""

import errno
import socket
from urllib.parse import urlsplit

from photoz import runtime
from photoz.errors import BadInput

_NO_ROUTE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EACCES, errno.EPERM}
)
# Nobody listens, or nobody says so: a server may be restarting, or a firewall be in the way.
_MAY_PASS = frozenset({errno.ECONNREFUSED, errno.ETIMEDOUT})
_RESTARTS = 2  # after so many the firewall is more likely


def why_unreachable(error: BaseException) -> str | None:
    """Why no connection to a server can be made from here, if a later try would find the same; else None.

    Without a name or a route that is so at once; a server that refuses, or that says nothing, has until the job has
    been started again twice.
    """
    cause = _first_cause(error)
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
    return BadInput(
        f"{urlsplit(url).hostname}: {why}; tried for {waited_s:.0f} s. If this machine has no internet, run "
        "photoz-job catalog and photoz-job shard with the same settings on one that has (a login node), then submit "
        "again; or set https_proxy"
    )


def _first_cause(error: BaseException | None) -> OSError | None:
    """The system's own error at the bottom of a library's; HTTP libraries wrap it several times."""
    found: OSError | None = None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, socket.gaierror | TimeoutError) or (isinstance(error, OSError) and error.errno):
            found = error
        wrapped = [getattr(error, "reason", None), getattr(error, "original_error", None), *error.args]
        inner = [each for each in (*wrapped, error.__cause__, error.__context__) if isinstance(each, BaseException)]
        error = inner[0] if inner else None
    return found
