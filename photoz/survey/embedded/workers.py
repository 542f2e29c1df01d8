"""Processes that draw cutouts for the server, so that all cores are used; they end when their parent is gone."""

import queue
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection

from photoz.survey.embedded.population import Population
from photoz.survey.embedded.request import Cutout


class DrawingFailed(Exception):
    """A worker could not draw a cutout; the message is the worker's own."""


class DrawingPool:
    """`count` worker processes that draw cutouts; started before the population is there, to overlap their imports."""

    def __init__(self, count: int) -> None:
        self._jobs: queue.SimpleQueue[tuple[Cutout, Future[bytes]] | None] = queue.SimpleQueue()
        self._workers = [_start_worker() for _ in range(count)]
        self._threads: list[threading.Thread] = []

    def begin(self, population: Population, seed: int) -> None:
        """Hand the sky to the workers and start drawing."""
        for process, connection in self._workers:
            connection.send((population.objects, population.shapes, seed))
            thread = threading.Thread(target=self._dispatch, args=(process, connection), daemon=True)
            thread.start()
            self._threads.append(thread)

    def draw(self, cutout: Cutout) -> bytes:
        """JPEG bytes of a cutout. Raises DrawingFailed."""
        result: Future[bytes] = Future()
        self._jobs.put((cutout, result))
        return result.result()

    def _dispatch(self, process: "subprocess.Popen[bytes]", connection: Connection) -> None:
        """Feed one worker, one cutout at a time, until the pool closes."""
        while (job := self._jobs.get()) is not None:
            cutout, result = job
            try:
                connection.send(cutout)
                drawn: bytes | str = connection.recv()
            except (EOFError, OSError):
                result.set_exception(DrawingFailed(f"a drawing process ended with status {process.wait()}"))
                return
            if isinstance(drawn, str):
                result.set_exception(DrawingFailed(drawn))
            else:
                result.set_result(drawn)

    def close(self) -> None:
        """End the workers: they leave when their connection closes."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=10)
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start_worker() -> tuple["subprocess.Popen[bytes]", Connection]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "photoz.survey.embedded.workers", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    return process, Connection(ours.detach())


def work(descriptor: int) -> None:
    """A worker's life: receive the sky, then draw what is asked until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server ends its workers
    from photoz.survey.embedded.render import Renderer  # GalSim loads while the sky is built

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
