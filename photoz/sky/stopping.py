"""Which processes of the embedded sky heed signals."""

import signal


def ignore_stop_signals() -> None:
    """A scheduler signals every process of a job; this one leaves when its parent does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
