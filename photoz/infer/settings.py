"""What `photoz-job infer` can be told."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from photoz.errors import BadInput
from photoz.settings import setting

# Values of a batch's images, by device. On a CPU what is computed of so many stays in a core's cache, and with fewer
# the calls themselves show; a GPU wants more, but up to eight shards are worked on at once.
_BATCH_VALUES = {"cpu": 800_000, "cuda": 25_000_000}


RECIPE = 6  # raise it when the same settings come to give other bytes


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
        False,
        "Test-time augmentation: the mean PDF over each image's flips and quarter turns, at up to 8 times the work.",
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
        return self.batch_size or max(2, _BATCH_VALUES[device] // image_values)

    def split_of(self, splits: Collection[str]) -> str:
        """The split to predict: the one asked for, else test where there is one, else all."""
        return self.split or ("test" if "test" in splits else "all")

    def decide(self, split: str, device: str) -> dict[str, Any]:
        """What decides the predictions, besides the model and the shards."""
        return {"split": split, "device": device} | ({"tta": True} if self.tta else {})
