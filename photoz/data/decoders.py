"""Whole shards decoded by processes, for several threads of this one at once.

Threads take the interpreter's lock several times an image, and eight of them decode as fast as more do; processes have
locks of their own (design/loading.md).
"""

from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue

from photoz.data.decode import Stored
from photoz.data.layout import ImageFormat
from photoz.data.locations import Locations
from photoz.data.workers import Workers
from photoz.errors import PhotozError

_IMAGES_A_PART, _BYTES_A_PART = 64, 2**25


class Decoders:
    """`count` processes, with a slot for each."""

    def __init__(self, count: int, image: ImageFormat) -> None:
        self._part_images = max(1, min(_IMAGES_A_PART, _BYTES_A_PART // image.image_bytes))
        self._workers = Workers(image, count=count, slots=count, slot_images=self._part_images)
        self._idle: SimpleQueue[int] = SimpleQueue()
        for worker in range(count):
            self._idle.put(worker)

    def read_into(self, locations: Locations, out: Stored) -> None:
        """Decode all images of `locations` into `out`, (b, *stored_shape).

        Raises BadFormat for a broken image, TryAgain where a process has died.
        """
        asked: deque[tuple[int, Stored]] = deque()  # workers, and where their images go

        def take_in() -> None:
            worker, place = asked.popleft()
            try:
                self._workers.wait(worker, stop=False)
                place[:] = self._workers.slots[worker, : len(place)]
            finally:
                self._idle.put(worker)

        try:
            for start in range(0, len(locations), self._part_images):
                part = slice(start, start + self._part_images)
                while (worker := self._next_idle(wait=not asked)) is None:
                    take_in()
                asked.append((worker, out[part]))
                self._workers.ask(worker, worker, locations[part])
            while asked:
                take_in()
        except PhotozError:
            # Whoever asks these processes next is to get answers of its own.
            while asked:
                with suppress(PhotozError):
                    take_in()
            raise

    def _next_idle(self, wait: bool) -> int | None:
        try:
            return self._idle.get(wait)
        except Empty:
            return None

    def close(self) -> None:
        """Let the processes go."""
        self._workers.close()
