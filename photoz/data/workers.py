"""Processes that decode images into memory which they share with this one.

Images go through no pipe and are copied by nobody on the way: this process says which it wants and where, and gets a
few bytes back. The memory has no name (memfd), so that none is left behind, and it is not limited by the size of
/dev/shm.
"""

import mmap
import multiprocessing
import os
import select
import signal
import sys
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np

from photoz.data.decode import Indices, Stored, stored_shape
from photoz.data.layout import ImageFormat
from photoz.data.locations import Locations, MemberReader
from photoz.errors import BadFormat, PhotozError, TryAgain
from photoz.ordered import POLL_S
from photoz.runtime import STOP_SIGNALS, check_stop, stop_signals_held, usable_cores, world


def usual_workers() -> int:
    """A core of each rank is for what asks; more than 16 decode faster than any GPU of today takes images."""
    return min(16, max(1, usable_cores() // world().local_size - 1))


class Workers:
    """`count` processes, and slots for up to `slot_images` images each, (slot, image, *stored_shape).

    The processes end when this is closed or collected, or when the process that made it is gone.
    """

    def __init__(
        self, image: ImageFormat, locations: Locations | None = None, *, count: int, slots: int, slot_images: int
    ) -> None:
        shape = (slots, slot_images, *stored_shape(image))
        size = slots * slot_images * image.image_bytes
        memory = os.memfd_create("photoz-images")
        try:
            os.ftruncate(memory, size)
            self.slots: Stored = np.frombuffer(mmap.mmap(memory, size), image.dtype).reshape(shape)
            context = multiprocessing.get_context("spawn")  # torch's threads don't live through a fork
            self._pipes: list[Connection] = []
            self._ready: list[select.poll] = []
            # Signals are for this process: it stops its workers itself, between batches.
            with stop_signals_held():
                for _ in range(count):
                    here, there = context.Pipe()
                    arguments = (DupFd(memory), shape, there, locations, image)
                    context.Process(target=_work, args=arguments, daemon=True, name="photoz decode").start()
                    there.close()
                    self._pipes.append(here)
                    self._ready.append(select.poll())  # Connection.poll makes a new one each time
                    self._ready[-1].register(here.fileno(), select.POLLIN)
        finally:
            os.close(memory)

    def __len__(self) -> int:
        return len(self._pipes)

    def ask(self, worker: int, slot: int, wanted: Indices | Locations) -> None:
        """Have a worker fill a slot with images: some of the `locations` that all were given, or else these.

        Raises TryAgain where it has died.
        """
        pipe = self._pipes[worker]
        try:
            if isinstance(wanted, Locations):
                pipe.send((slot, wanted))
            else:  # as bare numbers, in a third of the time
                pipe.send_bytes(slot.to_bytes(8, sys.byteorder) + wanted.astype(np.int64).tobytes())
        except OSError:
            raise _lost() from None

    def wait(self, worker: int, stop: bool = True) -> None:
        """Until the worker has done the first thing asked of it that was not waited for.

        Raises BadFormat for a broken image, TryAgain where it has died, and Preempted if `stop`.
        """
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

    def close(self) -> None:
        """Let the processes go."""
        for pipe in self._pipes:
            pipe.close()


def _lost() -> TryAgain:
    check_stop()  # it may have been stopped with this process, before it could ignore that
    return TryAgain("a process that decodes images was killed, perhaps for memory; run the same command to go on")


def _work(
    memory: Any, shape: tuple[int, ...], pipe: Connection, locations: Locations | None, image: ImageFormat
) -> None:
    """A worker's life: fill slots as asked, until the other end of the pipe is closed."""
    for number in (*STOP_SIGNALS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        mapped = mmap.mmap(memory.detach(), 0)
    except (EOFError, OSError):  # whoever started it has left already
        return
    slots = np.frombuffer(mapped, image.dtype).reshape(shape)
    usual = MemberReader(locations, image) if locations is not None else None
    while True:
        try:
            if usual:
                numbers = np.frombuffer(pipe.recv_bytes(), np.int64)
                read = partial(usual.read_into, numbers[1:], slots[numbers[0], : len(numbers) - 1])
            else:
                slot, wanted = pipe.recv()
                read = partial(_read_all, wanted, image, slots[slot])
            answer = b""
            try:
                read()
            except PhotozError as error:
                answer = str(error).encode()
            pipe.send_bytes(answer)
        except (EOFError, OSError):
            return


def _read_all(locations: Locations, image: ImageFormat, out: Stored) -> None:
    reader = MemberReader(locations, image)
    try:
        reader.read_into(np.arange(len(locations)), out[: len(locations)])
    finally:
        reader.close()
