"""Where a training's time goes."""

import time

PARTS = {
    "data_wait": "waiting for data",
    "forward_backward": "forward and backward",
    "communication": "between ranks",
    "rest": "the rest",
}


class StepClock:
    """Seconds by part of the step. On CUDA these are the CPU's, which runs ahead of the device between two looks."""

    def __init__(self) -> None:
        self.total = dict.fromkeys(PARTS, 0.0)  # of all epochs
        self.start()

    def start(self) -> None:
        """Forget what was counted, and count from now on."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._counted_until = time.monotonic()

    def lap(self, part: str) -> None:
        """What has passed since the last lap went into this part."""
        now = time.monotonic()
        self.seconds[part] += now - self._counted_until
        self.total[part] += now - self._counted_until
        self._counted_until = now

    def columns(self) -> dict[str, float]:
        """The seconds, as timings.parquet names them."""
        return {f"{part}_s": value for part, value in self.seconds.items()}


def in_words(seconds: dict[str, float]) -> str:
    """Each part's share, for people."""
    total = max(sum(seconds.values()), 1e-9)
    return ", ".join(f"{seconds[part] / total:.1%} {words}" for part, words in PARTS.items())
