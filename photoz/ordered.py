"""Threads over a stream: results in the order of the input, with only a few in memory at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from itertools import islice
from typing import TypeVar

from photoz.runtime import check_stop, stop_requested

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_S = 0.5


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int | None = None,
    cancel: Callable[[], object] | None = None,
) -> Iterator[Result]:
    """Yield `work(item)` for each item in order, at most `ahead` (default 4 a thread) begun but not yet taken.

    Raises what `work` raises, and Preempted as soon as a stop is asked for. However it ends, `cancel` is called
    before the threads are waited for, so that it can cut short work in hand; after a stop or Ctrl-C nobody waits.
    """
    stream = iter(items)
    pool = ThreadPoolExecutor(threads)
    hurried = False
    try:
        waiting = deque(pool.submit(work, item) for item in islice(stream, ahead or 4 * threads))
        while waiting:
            result = _await(waiting[0])
            waiting.popleft()
            waiting.extend(pool.submit(work, item) for item in islice(stream, 1))
            yield result
    except KeyboardInterrupt:
        hurried = True
        raise
    finally:
        if cancel:
            cancel()
        pool.shutdown(wait=not (hurried or stop_requested()), cancel_futures=True)


def _await(future: Future[Result]) -> Result:
    while True:
        check_stop()
        try:
            return future.result(timeout=POLL_S)
        except NotYet:
            # `work` may itself have ended in a TimeoutError, which is the same class.
            if future.done():
                return future.result()
