"""What `photoz-job infer` can be told."""

from dataclasses import dataclass
from typing import Literal

from photoz.errors import BadInput
from photoz.settings import setting

_GPU_BATCH = 512
_CPU_BATCH_VALUES = 800_000  # what is computed of so many stays in a core's cache; fewer, and the calls themselves show


@dataclass(frozen=True, kw_only=True)
class InferSettings:
    """Which galaxies to predict, and how many at a time."""

    split: Literal["test", "val", "train", "all"] | None = setting(
        None, "Galaxies to predict (default: test where the shards have it, else all)."
    )
    batch_size: int | None = setting(
        None,
        "Images a batch (default: by device and image size); it changes speed and memory, not results.",
        metavar="N",
    )
    tta: bool = setting(
        False, "Test-time augmentation: the mean PDF over each image's flips and quarter turns, at 8 times the work."
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "Where to compute; auto takes a GPU if there is one.")

    def __post_init__(self) -> None:
        if self.split not in (None, "test", "val", "train", "all"):
            raise BadInput(f"--split {self.split}: expected test, val, train or all")
        if self.batch_size is not None and not 1 <= self.batch_size <= 1_000_000:
            raise BadInput(f"--batch-size {self.batch_size}: expected 1 or more")
        if self.device not in ("auto", "cpu", "cuda"):
            raise BadInput(f"--device {self.device}: expected auto, cpu or cuda")

    def images_a_batch(self, device: str, image_values: int) -> int:
        """The batch size to use for images of so many values, all channels together."""
        by_device = max(2, _CPU_BATCH_VALUES // image_values) if device == "cpu" else _GPU_BATCH
        return self.batch_size or by_device
