"""The default network on real images with real redshifts: Hubble eXtreme Deep Field colours, MUSE redshifts.

    python -m benchmarks.xdf STAMPS.npz [--store FOLDER] [--folds 5] [--seeds 1] [photoz-job train's flags]

Each fold keeps whole blocks of sky out, goes through catalog, shard, train and infer as a user's table would, and is
tested on what was kept out. Prints R² of log(1 + z) over all folds together, beside trees on stamp colours trained on
the same galaxies, and a control trained on shuffled redshifts. Started again, it goes on.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.accuracy import photoz_job
from photoz.artifacts import Ref, load, open_store
from photoz.evaluate.baselines import trees_on_stamps
from photoz.evaluate.stamps import colours

ESTIMATES = ("z_phot", "z_mean")  # median and mean of the PDF: R² is kindest to the mean

Floats = NDArray[np.float64]
Blocks = NDArray[np.int64]

VAL_SHARE = 1 / 8  # of the blocks that are not tested, as a catalogue has it by default


@dataclass(frozen=True)
class Stamps:
    """Cutouts (b, h, w, c) uint8 and what is known of them."""

    images_bhwc: NDArray[np.uint8]
    table: pd.DataFrame

    @classmethod
    def read(cls, path: Path) -> "Stamps":
        """Read the npz file."""
        found = np.load(path)
        table = pd.DataFrame(
            {
                "object_id": [f"muse/{number}" for number in found["muse_id"]],
                "ra": found["ra"],
                "dec": found["dec"],
                "z_spec": found["z"].astype(float),
                "block": found["block"],
                "image": [f"{number}.npy" for number in found["muse_id"]],
            }
        )
        return cls(found["images"], table)

    def write(self, folder: Path) -> None:
        """One npy file a galaxy."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, image_hwc in zip(self.table["image"], self.images_bhwc, strict=True):
            np.save(folder / name, image_hwc)


def splits(blocks: Blocks, folds: int, seed: int) -> list[NDArray[np.str_]]:
    """For each fold, the split of each galaxy; every block is tested once."""
    shuffled = np.random.default_rng(seed).permutation(np.unique(blocks))
    found = []
    for fold in range(folds):
        test = shuffled[fold::folds]
        rest = np.setdiff1d(shuffled, test, assume_unique=True)
        val = np.random.default_rng((seed, fold)).permutation(rest)[: round(VAL_SHARE * len(rest))]
        found.append(np.where(np.isin(blocks, test), "test", np.where(np.isin(blocks, val), "val", "train")))
    return found


def predicted(stamps: Stamps, split: NDArray[np.str_], name: str, folder: Path, flags: list[str]) -> pd.DataFrame:
    """z_phot and z_mean of the galaxies kept out, by object id: the chain of jobs on one fold."""
    table, store = folder / f"{name}.csv", str(folder / "store")
    stamps.table.assign(split=split).to_csv(table, index=False)
    everywhere = ["--store", store, "--name", name]
    photoz_job("catalog", "--survey", "table", "--table", str(table), "--duplicates-arcsec", "0", *everywhere)
    photoz_job("shard", "--images", "files", *everywhere)
    photoz_job("train", *everywhere, *flags)
    photoz_job("infer", *everywhere)
    predictions = load(open_store(store), Ref("predictions", name))
    columns = ["object_id", *ESTIMATES]
    frames = [predictions.table(one, columns).to_pandas() for one in predictions.names("*.parquet")]
    return pd.concat(frames).set_index("object_id")


def cross_validated(stamps: Stamps, folds: int, seed: int, name: str, folder: Path, flags: list[str]) -> pd.DataFrame:
    """z_phot and z_mean of every galaxy from the fold that kept it out, in the order of the stamps."""
    found = [
        predicted(stamps, split, f"{name}-{fold}", folder, flags)
        for fold, split in enumerate(splits(stamps.table["block"].to_numpy(), folds, seed))
    ]
    return pd.concat(found).loc[stamps.table["object_id"]].astype(float)


def trees(stamps: Stamps, folds: int, seed: int) -> Floats:
    """The same from trees on stamp colours, which learn from what train and val hold together."""
    features = colours(stamps.images_bhwc.transpose(0, 3, 1, 2))
    z_spec = stamps.table["z_spec"].to_numpy()
    z_phot = np.empty(len(z_spec))
    for split in splits(stamps.table["block"].to_numpy(), folds, seed):
        test = split == "test"
        z_phot[test] = trees_on_stamps(features[~test], z_spec[~test], features[test])
    return z_phot


def r2_of_log(z_phot: Floats, z_spec: Floats) -> float:
    """Share of the variance of log(1 + z) that the predictions explain."""
    log_spec = np.log1p(z_spec)
    residual = np.log1p(z_phot) - log_spec
    return float(1.0 - (residual**2).sum() / ((log_spec - log_spec.mean()) ** 2).sum())


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path)
    parser.add_argument("--store", type=Path, default=Path("./xdf-store"), help="folder for tables and artifacts")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1, help="seeds of folds and training")
    options, flags = parser.parse_known_args()
    stamps = Stamps.read(options.stamps)
    stamps.write(options.store)
    z_spec = stamps.table["z_spec"].to_numpy()
    rows: list[tuple[str, float]] = []

    def add(label: str, found: pd.DataFrame) -> None:
        rows.extend((f"{label}, {name}", r2_of_log(found[name].to_numpy(), z_spec)) for name in ESTIMATES)

    for seed in range(options.seeds):
        run = (stamps, options.folds, seed)
        add(f"network, seed {seed}", cross_validated(*run, f"xdf-{seed}", options.store, ["--seed", str(seed), *flags]))
        rows.append((f"trees on stamp colours, folds of seed {seed}", r2_of_log(trees(*run), z_spec)))
    control = ["--shuffle-labels", *flags]
    shuffled = cross_validated(stamps, options.folds, 0, "xdf-shuffled", options.store, control)
    add("control: network trained on shuffled redshifts", shuffled)
    print(f"\n| {len(z_spec)} galaxies, whole blocks kept out in {options.folds} folds | R² of log(1 + z) |\n|---|---|")
    for label, score in rows:
        print(f"| {label} | {score:.3f} |")


if __name__ == "__main__":
    main()
