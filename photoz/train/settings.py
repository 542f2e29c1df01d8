"""What `photoz-job train` can be told."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from photoz.errors import BadInput
from photoz.model.names import APERTURE_CNN, NETWORKS, Recipe, check_model_name, recipe_for
from photoz.settings import parse_duration, setting

_LARGEST_SEED = 2**31


RECIPE = 10  # raise it when the same settings come to give other bytes


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Which network, how long, and on what. What is left out comes from the network's recipe."""

    model: str = setting(
        APERTURE_CNN, f"Network: {', '.join(NETWORKS)}, or torchvision:NAME where it is installed.", metavar="NAME"
    )
    epochs: int | None = setting(
        None, "Times that training sees each galaxy (default: by the network and the sample's size).", metavar="N"
    )
    batch_size: int | None = setting(
        None, "Galaxies a step, over all processes together (default: as for epochs).", metavar="N"
    )
    seed: int = setting(0, "Seed of the weights, the shuffles and the augmentation.", metavar="N")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "Where to compute; auto takes a GPU if there is one.")
    nproc: int = setting(1, "Processes on this machine, one a GPU with CUDA.", metavar="N")
    bins: int = setting(200, "Redshift bins of the PDFs, of equal width in log(1 + z).", metavar="N")
    checkpoints: str | None = setting(
        None, "Local folder for checkpoints (default: beside the model in the store).", metavar="DIR"
    )
    checkpoint_every: str = setting(
        "10m",
        "Save a checkpoint this often inside an epoch, too: 90s, 10m; one comes after each epoch.",
        metavar="TIME",
    )
    rank_timeout: str = setting(
        "20m",
        "With several processes: give up when one says nothing for this long. Rank 0 validates and writes meanwhile.",
        metavar="TIME",
    )
    decoded: Literal["auto", "memory", "disk", "never"] = setting(
        "auto", "Decode images once into memory, or into a file of the cache, or never keep them (auto: by their size)."
    )
    micro_batch: int | None = setting(
        None,
        "Galaxies at a time on each device, where a process's share of the batch needs too much memory.",
        metavar="N",
    )
    shuffle_labels: bool = setting(
        False, "Control: train on redshifts dealt out at random; the model must then know nothing."
    )

    def __post_init__(self) -> None:
        if self.model.startswith("model/"):
            raise BadInput(
                f"--model {self.model}: the ref of a trained model, where train expects a network's name: "
                f"{', '.join(NETWORKS)}, …; a trained model is what infer reads"
            )
        check_model_name(self.model)
        parse_duration(self.checkpoint_every)
        if parse_duration(self.rank_timeout) < 1:
            raise BadInput(f"--rank-timeout {self.rank_timeout}: expected 1s or more")
        if self.checkpoints is not None and (not self.checkpoints or "://" in self.checkpoints):
            raise BadInput(f"--checkpoints {self.checkpoints!r}: expected a folder of this machine")
        if self.epochs is not None and not 1 <= self.epochs <= 100_000:
            raise BadInput(f"--epochs {self.epochs}: expected 1 or more")
        if self.batch_size is not None and not 1 <= self.batch_size <= 1_000_000:
            raise BadInput(f"--batch-size {self.batch_size}: expected 1 or more")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise BadInput(f"--micro-batch {self.micro_batch}: expected 1 or more")
        if self.decoded not in ("auto", "memory", "disk", "never"):
            raise BadInput(f"--decoded {self.decoded}: expected auto, memory, disk or never")
        if not 0 <= self.seed < _LARGEST_SEED:
            raise BadInput(f"--seed {self.seed}: expected 0 to {_LARGEST_SEED - 1}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise BadInput(f"--device {self.device}: expected auto, cpu or cuda")
        if not 1 <= self.nproc <= 64:
            raise BadInput(f"--nproc {self.nproc}: expected 1 to 64 processes on this machine")
        if not 10 <= self.bins <= 5000:
            raise BadInput(f"--bins {self.bins}: expected 10 to 5000 redshift bins")

    def recipe(self, training_images: int) -> Recipe:
        """The network's recipe for a training split of this size, with what the user asked for in its place."""
        recipe = recipe_for(self.model, training_images)
        recipe = recipe if self.epochs is None else replace(recipe, epochs=self.epochs)
        return recipe if self.batch_size is None else replace(recipe, batch_size=self.batch_size)

    def decide(self, recipe: Recipe, ranks: int, device: str) -> dict[str, Any]:
        """What decides the weights: sums over ranks, and over a device's lanes, round in their own order."""
        chosen: dict[str, Any] = {"model": self.model, "seed": self.seed, "bins": self.bins}
        if self.micro_batch:
            chosen["micro_batch"] = self.micro_batch
        return chosen | {
            "recipe": asdict(recipe),
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "shuffle_labels": self.shuffle_labels,
            "world": ranks,
            "device": device,
        }
