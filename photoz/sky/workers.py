"""Processes that draw cutouts for the server, so that all cores are used; they end when their parent is gone."""

import logging
import queue
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection

from photoz.sky.population import Population
from photoz.sky.request import Cutout
from photoz.sky.stopping import ignore_stop_signals

logger = logging.getLogger("photoz.sky")


class DrawingFailed(Exception):
    """A worker could not draw a cutout; the message is the worker's own."""


class DrawingPool:
    """`count` worker processes that draw cutouts; started before the population is there, to overlap their imports."""

    def __init__(self, count: int) -> None:
        self._jobs: queue.SimpleQueue[tuple[Cutout, Future[bytes]] | None] = queue.SimpleQueue()
        self._workers = [_Worker() for _ in range(count)]
        self._threads: list[threading.Thread] = []

    def begin(self, population: Population, seed: int) -> None:
        """Hand the sky to the workers and start drawing."""
        sky = (population.objects, population.shapes, seed)
        for worker in self._workers:
            worker.receive(sky)
            thread = threading.Thread(target=self._dispatch, args=(worker, sky), daemon=True)
            thread.start()
            self._threads.append(thread)

    def draw(self, cutout: Cutout) -> bytes:
        """JPEG bytes of a cutout. Raises DrawingFailed."""
        result: Future[bytes] = Future()
        self._jobs.put((cutout, result))
        return result.result()

    def _dispatch(self, worker: "_Worker", sky: object) -> None:
        """Feed one worker, one cutout at a time, until the pool closes; a worker that died is replaced."""
        while (job := self._jobs.get()) is not None:
            cutout, result = job
            drawn = worker.draw(cutout) or worker.restarted(sky).draw(cutout)
            if isinstance(drawn, bytes):
                result.set_result(drawn)
            else:
                result.set_exception(DrawingFailed(drawn or f"drawing {cutout} ended two processes"))

    def close(self) -> None:
        """End the workers: they leave when their connection closes."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=10)
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.leave()


class _Worker:
    """A worker process and our end of its connection."""

    def __init__(self) -> None:
        self.process, self.connection = _start_worker()

    def receive(self, sky: object) -> None:
        """Hand over the sky; a process that has died already shows when it is asked to draw."""
        with suppress(OSError):
            self.connection.send(sky)

    def draw(self, cutout: Cutout) -> bytes | str | None:
        """JPEG bytes, or the words of an error, or None where the process has died."""
        try:
            self.connection.send(cutout)
            drawn: bytes | str = self.connection.recv()
        except (EOFError, OSError):
            return None
        return drawn

    def restarted(self, sky: object) -> "_Worker":
        """This worker with a new process in place of the one that died."""
        self.connection.close()
        logger.warning("a drawing process ended with status %s; another takes its place", self.process.wait())
        self.process, self.connection = _start_worker()
        self.receive(sky)
        return self

    def leave(self) -> None:
        """Wait for the process to end, and end it if it doesn't."""
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _start_worker() -> tuple["subprocess.Popen[bytes]", Connection]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "photoz.sky.workers", str(theirs.fileno())]
    # A session of its own: Ctrl-C is for the server, which then closes the connection.
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True)
    theirs.close()
    return process, Connection(ours.detach())


def work(descriptor: int) -> None:
    """A worker's life: receive the sky, then draw what is asked until the other end closes."""
    ignore_stop_signals()
    from photoz.sky.render import Renderer  # GalSim loads while the sky is built

    connection = Connection(descriptor)
    try:
        objects, shapes, seed = connection.recv()
        renderer = Renderer(objects, shapes, seed)
        while True:
            cutout: Cutout = connection.recv()
            try:
                connection.send(renderer.jpeg(cutout))
            except (ArithmeticError, ValueError, MemoryError) as error:
                connection.send(f"{type(error).__name__}: {error}")
    except (EOFError, OSError):
        return


if __name__ == "__main__":
    work(int(sys.argv[1]))
