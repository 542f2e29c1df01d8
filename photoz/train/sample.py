"""The galaxies to train and validate on, refused where they would make a score mean nothing."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from photoz.data import Images, ShardSet
from photoz.data.image_set import Place
from photoz.data.resident import ResidentImages, load_resident
from photoz.errors import BadInput

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """Images of a split and their spectroscopic redshifts, in the same order."""

    images: Images | ResidentImages
    z_spec: Floats

    def __len__(self) -> int:
        return len(self.z_spec)


def check_splits(shards: ShardSet) -> None:
    """Raise BadInput unless there are train and val galaxies, every id comes once, and all have redshifts."""
    for split in ("train", "val"):
        if split not in shards.splits or not shards.count(split):
            raise BadInput(
                f"{shards.artifact.ref}: its {split} split is empty; make shards of a larger catalogue, "
                "or give its table a split column with train, val and test"
            )
    rows = shards.table(columns=["object_id"])
    counts = pc.value_counts(rows["object_id"]).field("counts")
    if len(counts) != len(rows):
        raise BadInput(f"{shards.artifact.ref}: {_twice(rows)} is in it twice; no galaxy may be in two splits")


def _twice(rows: pa.Table) -> str:
    counted = rows.group_by("object_id").aggregate([([], "count_all")])
    return str(counted.filter(pc.greater(counted["count_all"], 1))["object_id"][0])


def load_labelled(
    shards: ShardSet, split: str, place: Place | Literal["auto"] = "auto", on: torch.device | None = None
) -> Labelled:
    """Decode a split: on to a device to stay there, or to a place in this machine.

    Raises BadInput for a galaxy without a redshift, or with one that can't be.
    """
    images = load_resident(shards, split, on) if on else shards.load(split, place)
    z_spec = pc.cast(images.table["z_spec"], pa.float64()).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~(np.isfinite(z_spec) & (z_spec > -0.5)))
    if len(wrong):
        object_id, value = images.table["object_id"][int(wrong[0])], z_spec[wrong[0]]
        raise BadInput(
            f"{shards.artifact.ref}: {split} galaxy {object_id} has z_spec {value}: expected a finite redshift; "
            "leave it out of the table, or give it no split"
        )
    return Labelled(images, z_spec)


def shuffled(labelled: Labelled, seed: int) -> Labelled:
    """The same images with their redshifts dealt out at random."""
    return Labelled(labelled.images, np.random.default_rng((seed, 0xC0)).permutation(labelled.z_spec))
