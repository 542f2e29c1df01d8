"""Processes that decode images into memory which they share with this one.

Threads take the GIL several times an image, and eight of them decode as fast as more do; processes have a GIL each
(docs/design/loading.md). Images go through no pipe: a request says where they lie and which slot to fill, the reply is
a few bytes. The memory has no name (memfd), so that none is left behind, and /dev/shm does not limit its size.
"""

import mmap
import multiprocessing
import os
import select
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import numpy as np

from photoz.data.decode import Stored, stored_shape
from photoz.data.layout import ImageFormat
from photoz.data.locations import Locations, MemberReader
from photoz.errors import BadFormat, PhotozError, TryAgain
from photoz.ordered import POLL_S
from photoz.runtime import STOP_SIGNALS, check_stop, stop_signals_held, usable_cores, world

_SLOTS_A_WORKER = 3  # one being filled, one ready, one in use by the caller


def usual_workers() -> int:
    """A core of each rank is for the caller; more than 16 decode faster than any GPU of today takes images."""
    return min(16, max(1, usable_cores() // world().local_size - 1))


class Workers:
    """`count` processes, and three slots for each, of up to `slot_images` images.

    With `keep_open` they keep the tars open that they have read from. Several threads may use it at once. The
    processes end when this is closed or collected, or when the process that made it is gone.
    """

    def __init__(self, image: ImageFormat, count: int, slot_images: int, keep_open: bool = False) -> None:
        self.slot_images = slot_images
        shape = (_SLOTS_A_WORKER * count, slot_images, *stored_shape(image))
        size = shape[0] * slot_images * image.image_bytes
        memory = os.memfd_create("photoz-images")
        try:
            os.ftruncate(memory, size)
            self._slots: Stored = np.frombuffer(mmap.mmap(memory, size), image.dtype).reshape(shape)
            # Signals are for this process: it stops its workers itself, between batches.
            with stop_signals_held():
                self._workers = [_Worker((DupFd(memory), shape, image, keep_open)) for _ in range(count)]
        finally:
            os.close(memory)
        self._free: SimpleQueue[int] = SimpleQueue()  # slots; slot i is filled by worker i modulo their number
        for slot in range(len(self._slots)):
            self._free.put(slot)

    def read(self, parts: Iterable[Locations]) -> Iterator[Stored]:
        """The images of each part, (b, *stored_shape), in order, prefetched; each stays valid for two iterations.

        Raises BadFormat for a broken image, TryAgain where a process has died, Preempted.
        """
        stream = iter(parts)
        requests: deque[_Request] = deque()
        in_use: deque[int] = deque()  # slots of the last two parts
        try:
            while True:
                if len(in_use) == 2:
                    self._free.put(in_use.popleft())
                while (slot := self._free_slot(wait=not requests)) is not None:
                    part = next(stream, None)
                    if part is None:
                        self._free.put(slot)
                        break
                    requests.append(_Request(slot, len(part)))
                    self._worker(slot).send(requests[-1], part)
                if not requests:
                    return
                self._worker(requests[0].slot).wait(requests[0])
                done = requests.popleft()
                in_use.append(done.slot)
                yield self._slots[done.slot, : done.images]
        finally:
            # Left early: a slot is free once no process writes into it.
            for request in requests:
                with suppress(PhotozError):
                    self._worker(request.slot).wait(request, stop=False)
                self._free.put(request.slot)
            for slot in in_use:
                self._free.put(slot)

    def read_into(self, where: Locations, out: Stored) -> None:
        """Decode the images at `where` into `out`, (b, *stored_shape). Raises what `read` raises."""
        parts = [slice(start, start + self.slot_images) for start in range(0, len(where), self.slot_images)]
        for part, images in zip(parts, self.read(where[part] for part in parts), strict=True):
            out[part] = images

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.pipe.close()

    def _worker(self, slot: int) -> "_Worker":
        return self._workers[slot % len(self._workers)]

    def _free_slot(self, wait: bool) -> int | None:
        try:
            return self._free.get(wait)
        except Empty:
            return None


@dataclass(eq=False)
class _Request:
    """A part that a process is to decode into a slot, and how it ended."""

    slot: int
    images: int
    done: bool = False
    problem: str = ""


class _Worker:
    """One process. It answers requests in the order in which they came."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads don't survive a fork
        self.pipe, there = context.Pipe()
        context.Process(target=_work, args=(there, *arguments), daemon=True, name="photoz decode").start()
        there.close()
        self._ready = select.poll()  # Connection.poll makes a new one each time
        self._ready.register(self.pipe.fileno(), select.POLLIN)
        self._requests: deque[_Request] = deque()  # not answered yet
        self._sending, self._receiving = Lock(), Lock()

    def send(self, request: _Request, where: Locations) -> None:
        """Raises TryAgain where the process has died."""
        try:
            with self._sending:
                self._requests.append(request)
                self.pipe.send((request.slot, where))
        except OSError:
            raise _lost() from None

    def wait(self, request: _Request, stop: bool = True) -> None:
        """Until it is done. Raises BadFormat for a broken image, TryAgain where the process has died, Preempted."""
        with self._receiving:
            while not request.done:
                try:
                    while not self._ready.poll(1000 * POLL_S):
                        if stop:
                            check_stop()
                    answer = self.pipe.recv_bytes()
                except (EOFError, OSError):
                    raise _lost() from None
                first = self._requests.popleft()
                first.problem, first.done = answer.decode(), True
        if request.problem:
            raise BadFormat(request.problem)


def _lost() -> TryAgain:
    check_stop()  # it may have been stopped with this process, before it could ignore that
    return TryAgain("a process that decodes images was killed, perhaps for memory; run the same command to go on")


def _work(pipe: Connection, memory: Any, shape: tuple[int, ...], image: ImageFormat, keep_open: bool) -> None:
    """What a process does: fill slots until the other end of the pipe is closed."""
    for number in (*STOP_SIGNALS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        mapped = mmap.mmap(memory.detach(), 0)
    except (EOFError, OSError):  # whoever started it has left already
        return
    slots = np.frombuffer(mapped, image.dtype).reshape(shape)
    reader = MemberReader(image)
    with suppress(EOFError, OSError):
        while True:
            slot, where = pipe.recv()
            answer = ""
            try:
                reader.read_into(where, slots[slot])
            except PhotozError as error:
                answer = str(error)
            if not keep_open:
                reader.close()
            pipe.send_bytes(answer.encode())
