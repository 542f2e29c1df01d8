"""Processes that decode images into memory which they share with this one: a batch a slot, in the order asked for.

A batch goes through no pipe and is copied by nobody: this process sends the numbers of its images and gets a few bytes
back. The memory has no name (memfd), so that none is left behind, and it is not limited by the size of /dev/shm.
"""

import mmap
import multiprocessing
import os
import select
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz.data.decode import stored_shape
from photoz.data.layout import ImageFormat
from photoz.data.locations import Locations, MemberReader
from photoz.errors import BadFormat, PhotozError, TryAgain
from photoz.ordered import POLL_S
from photoz.runtime import STOP_SIGNALS, check_stop, stop_signals_held

Indices = NDArray[np.integer[Any]]
Stored = NDArray[np.generic]

_SLOTS_A_WORKER = 3  # one being filled, one ready, one in the hands of whoever asked


class Ring:
    """`workers` processes and their slots, each for up to `slot_images` images.

    The processes end when the ring is closed or collected, or when the process that made it is gone.
    """

    def __init__(self, locations: Locations, image: ImageFormat, workers: int, slot_images: int) -> None:
        slots = _SLOTS_A_WORKER * workers
        shape = (slots, slot_images, *stored_shape(image))
        size = slots * slot_images * image.image_bytes
        memory = os.memfd_create("photoz-ring")
        try:
            os.ftruncate(memory, size)
            self._slots: Stored = np.frombuffer(mmap.mmap(memory, size), image.dtype).reshape(shape)
            context = multiprocessing.get_context("spawn")  # torch's threads don't live through a fork
            self._pipes: list[Connection] = []
            self._ready: list[select.poll] = []
            # Signals are for this process: it stops its workers itself, between batches.
            with stop_signals_held():
                for _ in range(workers):
                    here, there = context.Pipe()
                    arguments = (DupFd(memory), shape, there, locations, image)
                    context.Process(target=_work, args=arguments, daemon=True, name="photoz decode").start()
                    there.close()
                    self._pipes.append(here)
                    self._ready.append(select.poll())  # Connection.poll makes a new one each time
                    self._ready[-1].register(here.fileno(), select.POLLIN)
        finally:
            os.close(memory)

    def batches(self, parts: Iterable[Indices]) -> Iterator[Stored]:
        """The images of each part, (b, *stored_shape), in order; each is overwritten two batches later.

        One iteration at a time. Raises BadFormat for a broken image, TryAgain where a worker has died, Preempted.
        """
        workers, slots = len(self._pipes), len(self._slots)
        asked: deque[tuple[int, int]] = deque()  # (number of the part, its images)
        stream = enumerate(parts)

        def ask() -> None:
            for number, part in stream:
                request = (number % slots).to_bytes(8, sys.byteorder) + part.astype(np.int64).tobytes()
                self._send(number % workers, request)
                asked.append((number, len(part)))
                return

        try:
            # Two slots stay free: the one in the caller's hands, and the one that it had before.
            for _ in range(slots - 2):
                ask()
            while asked:
                number, count = asked.popleft()
                self._await(number % workers)
                ask()
                yield self._slots[number % slots, :count]
        finally:
            # Left early: nobody may write into a slot that the next iteration hands out.
            with suppress(PhotozError):
                while asked:
                    self._await(asked.popleft()[0] % workers, stop=False)

    def close(self) -> None:
        """Let the workers go."""
        for pipe in self._pipes:
            pipe.close()

    def _send(self, worker: int, request: bytes) -> None:
        try:
            self._pipes[worker].send_bytes(request)
        except OSError:
            raise _lost() from None

    def _await(self, worker: int, stop: bool = True) -> None:
        pipe = self._pipes[worker]
        try:
            while not self._ready[worker].poll(1000 * POLL_S):
                if stop:
                    check_stop()
            answer = pipe.recv_bytes()
        except (EOFError, OSError):
            raise _lost() from None
        if answer:
            raise BadFormat(answer.decode())


def _lost() -> TryAgain:
    check_stop()  # it may have been stopped with this process, before it could ignore that
    return TryAgain("a process that decodes images was killed, perhaps for memory; run the same command to go on")


def _work(memory: Any, shape: tuple[int, ...], pipe: Connection, locations: Locations, image: ImageFormat) -> None:
    """A worker's life: fill slots as asked, until the other end of the pipe is closed."""
    for number in (*STOP_SIGNALS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    slots = np.frombuffer(mmap.mmap(memory.detach(), 0), image.dtype).reshape(shape)
    reader = MemberReader(locations, image)
    while True:
        try:
            request = np.frombuffer(pipe.recv_bytes(), np.int64)
            answer = b""
            try:
                reader.read_into(request[1:], slots[int(request[0]), : len(request) - 1])
            except PhotozError as error:
                answer = str(error).encode()
            pipe.send_bytes(answer)
        except (EOFError, OSError):
            return
