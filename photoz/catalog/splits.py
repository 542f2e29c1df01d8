"""Which galaxies train, validate and test: whole sky cells, or whole blocks of the user's, never single galaxies."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import cdshealpix.nested
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from astropy.coordinates import Latitude, Longitude

from photoz.catalog.sampling import are_unique
from photoz.catalog.shares import SPLITS, SplitFractions
from photoz.errors import BadInput, PhotozError

COARSEST_ORDER = 6  # nside 64: cells of 55 arcmin
FINEST_ORDER = 15  # cells of 6.4 arcsec; finer ones would part a galaxy from its own outskirts
FEWEST_CELLS = 20  # to deal out by hand: fewer can't come near the wanted shares

log = logging.getLogger("photoz.catalog")

Strings = npt.NDArray[np.str_]
Cells = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SplitPlan:
    """How a catalogue was split: by `healpix` cells of `order`, by `block`, by the user's own `column`, or not."""

    by: str
    order: int | None = None
    assigned: str | None = None  # by a "hash" of each cell, or "dealt" out to meet the shares

    @property
    def nside(self) -> int | None:
        """HEALPix nside of the cells."""
        return None if self.order is None else 2**self.order


def healpix_cells(ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64], order: int) -> Cells:
    """Nested HEALPix cell of each position."""
    cells = cdshealpix.nested.lonlat_to_healpix(Longitude(ra_deg, u.deg), Latitude(dec_deg, u.deg), order)
    return np.asarray(cells, dtype=np.int64)


def split_by_cell(
    ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64], shares: SplitFractions
) -> tuple[Strings, Cells, SplitPlan]:
    """Split by sky cell: (split, cell) of each galaxy, and how.

    At nside 64 a cell's split depends on the cell alone, so a galaxy's split is the same in every catalogue. Where
    that leaves a split with less than half its share, as in a small field, finer cells are used, dealt out if needed.
    """
    cells = healpix_cells(ra_deg, dec_deg, COARSEST_ORDER)
    splits = _hashed(cells, COARSEST_ORDER, shares)
    if _fair(splits, shares):
        return splits, cells, SplitPlan("healpix", COARSEST_ORDER, "hash")
    order = _order_with_enough_cells(ra_deg, dec_deg)
    cells = healpix_cells(ra_deg, dec_deg, order)
    splits = _hashed(cells, order, shares)
    if _fair(splits, shares):
        return splits, cells, SplitPlan("healpix", order, "hash")
    return deal(cells, shares), cells, SplitPlan("healpix", order, "dealt")


def _order_with_enough_cells(ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64]) -> int:
    finest = healpix_cells(ra_deg, dec_deg, FINEST_ORDER)
    occupied = {
        order: len(np.unique(finest >> 2 * (FINEST_ORDER - order))) for order in range(COARSEST_ORDER, FINEST_ORDER + 1)
    }
    wanted = min(FEWEST_CELLS, max(occupied.values()))
    return min(order for order, cells in occupied.items() if cells >= wanted)


def _hashed(cells: Cells, order: int, shares: SplitFractions) -> Strings:
    """Each cell's split from a hash of its number; independent of which galaxies there are."""
    unique, inverse = np.unique(cells, return_inverse=True)
    draws = np.array([_uniform(f"{order}/{cell}") for cell in unique])
    edges = np.cumsum([shares.train, shares.val])
    return np.array(SPLITS)[np.searchsorted(edges, draws, side="right")][inverse]


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


def _fair(splits: Strings, shares: SplitFractions) -> bool:
    counts = {split: int(np.count_nonzero(splits == split)) for split in SPLITS}
    return all(counts[split] >= max(1.0, shares.of(split) * len(splits) / 2) for split in SPLITS)


def deal(groups: Cells | Strings, shares: SplitFractions) -> Strings:
    """Deal whole groups out to the splits so that each gets close to its share, and none is empty if there are three.

    The largest group goes to train; the others follow in the order of a hash, each to the split furthest behind.
    """
    unique, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    by_hash = sorted(range(len(unique)), key=lambda index: (_uniform(f"deal/{unique[index]}"), index))
    largest = max(by_hash, key=lambda index: int(sizes[index]))
    dealt = dict.fromkeys(SPLITS, 0)
    owner = np.empty(len(unique), dtype="<U5")
    for index in [largest, *(index for index in by_hash if index != largest)]:
        behind = min(("train", "test", "val"), key=lambda split: dealt[split] / shares.of(split))
        owner[index] = behind
        dealt[behind] += int(sizes[index])
    return owner[inverse]


def add_splits(rows: pa.Table, shares: SplitFractions) -> tuple[pa.Table, SplitPlan]:
    """`rows` with `healpix` and `split`, and how they were split: as the user's `split` column says, else by the
    user's `block`s, else by sky cell. Rows without z_spec are in no split. Raises BadInput for fewer than 3 blocks.
    """
    ra_deg, dec_deg = rows["ra"].to_numpy(), rows["dec"].to_numpy()
    cells = healpix_cells(ra_deg, dec_deg, COARSEST_ORDER)
    rows = rows.append_column("healpix", pa.array(cells, pa.int32()))
    ids = rows["object_id"]
    if "split" in rows.column_names:
        check_ids(ids)
        _say_shared_cells(cells, rows["split"].to_pylist())
        return rows, SplitPlan("column")
    with_z = np.zeros(rows.num_rows, dtype=bool)
    if "z_spec" in rows.column_names:
        with_z = ~np.isnan(rows["z_spec"].to_numpy().astype(float))
    splits = pa.nulls(rows.num_rows, pa.string())
    plan = SplitPlan("none")
    groups: Cells | Strings
    if with_z.any():
        if "block" in rows.column_names:
            blocks = np.array(rows["block"].filter(with_z).to_pylist())
            found, groups, plan = _split_by_block(blocks, shares)
        else:
            found, groups, plan = split_by_cell(ra_deg[with_z], dec_deg[with_z], shares)
        splits = pc.replace_with_mask(splits, with_z, pa.array(found, pa.string()))
        check_groups(splits.filter(with_z), groups)
    check_ids(ids)
    return rows.append_column("split", splits), plan


def _split_by_block(blocks: Strings, shares: SplitFractions) -> tuple[Strings, Strings, SplitPlan]:
    count = len(np.unique(blocks))
    if count < len(SPLITS):
        raise BadInput(
            f"the block column has {count} blocks; expected at least 3, one for each of train, val and test: "
            "use smaller blocks, or leave the column out to split by sky cell"
        )
    return deal(blocks, shares), blocks, SplitPlan("block", assigned="dealt")


def _say_shared_cells(cells: Cells, splits: Sequence[str | None]) -> None:
    pairs = {(int(cell), split) for cell, split in zip(cells, splits, strict=True) if split is not None}
    shared = len(pairs) - len({cell for cell, _ in pairs})
    if shared:
        log.warning(
            "the table's own split column puts neighbours into different splits (%d sky cells hold two or more): "
            "scores may look better than they are",
            shared,
        )


def check_ids(object_ids: pa.Array | pa.ChunkedArray) -> None:
    """Raise PhotozError if an id appears twice."""
    if not are_unique(object_ids):
        raise PhotozError("a galaxy is in the catalogue twice after cleaning: this is a bug; please report it")


def check_groups(splits: pa.Array, groups: Cells | Strings) -> None:
    """Raise PhotozError if the galaxies of one group (cell or block) are in two splits."""
    pairs = pa.table({"group": groups, "split": splits}).filter(pc.is_valid(pc.field("split")))
    several = pairs.group_by("group").aggregate([("split", "min"), ("split", "max")])
    several = several.filter(pc.field("split_min") != pc.field("split_max"))
    if several.num_rows:
        group, first, other = several.slice(0, 1).to_pylist()[0].values()
        raise PhotozError(f"sky cell or block {group} is in {first} and in {other}: this is a bug")
