"""Batches from processes that decode ahead: a batch a slot, in the order asked for."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress

from photoz.data.decode import Indices, Stored
from photoz.data.layout import ImageFormat
from photoz.data.locations import Locations
from photoz.data.workers import Workers
from photoz.errors import PhotozError

_SLOTS_A_WORKER = 3  # one being filled, one ready, one in the hands of whoever asked


class Ring:
    """`workers` processes and their slots, each for up to `slot_images` images. See Workers."""

    def __init__(self, locations: Locations, image: ImageFormat, workers: int, slot_images: int) -> None:
        self._workers = Workers(
            image, locations, count=workers, slots=_SLOTS_A_WORKER * workers, slot_images=slot_images
        )

    def batches(self, parts: Iterable[Indices]) -> Iterator[Stored]:
        """The images of each part, (b, *stored_shape), in order; each is overwritten two batches later.

        One iteration at a time. Raises BadFormat for a broken image, TryAgain where a worker has died, Preempted.
        """
        workers, slots = len(self._workers), self._workers.slots
        asked: deque[tuple[int, int]] = deque()  # (number of the part, its images)
        stream = enumerate(parts)

        def ask() -> None:
            for number, part in stream:
                self._workers.ask(number % workers, number % len(slots), part)
                asked.append((number, len(part)))
                return

        try:
            # Two slots stay free: the one in the caller's hands, and the one that it had before.
            for _ in range(len(slots) - 2):
                ask()
            while asked:
                number, count = asked.popleft()
                self._workers.wait(number % workers)
                ask()
                yield slots[number % len(slots), :count]
        finally:
            # Left early: nobody may write into a slot that the next iteration hands out.
            while asked:
                with suppress(PhotozError):
                    self._workers.wait(asked.popleft()[0] % workers, stop=False)

    def close(self) -> None:
        """Let the workers go."""
        self._workers.close()
