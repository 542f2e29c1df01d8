"""From rows of any source to a clean sample: region, duplicates, limit; each step recorded."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from photoz.errors import BadInput
from photoz.regions import Region

log = logging.getLogger("photoz.catalog")

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

PAIRS_AT_ONCE = 4_000_000
SAME_REDSHIFT = 0.005  # |dz| / (1 + z) below which two spectra within reach are of one galaxy


@dataclass
class Attrition:
    """Cuts in order, and the rows that each left."""

    steps: list[tuple[str, int]] = field(default_factory=list)

    def add(self, cut: str, rows: int) -> None:
        """Record a cut; BadInput if it left nothing."""
        before = self.steps[-1] if self.steps else None
        self.steps.append((cut, rows))
        if rows == 0:
            left = f"{before[1]} rows were left after {before[0]!r}" if before else "it is the first step"
            raise BadInput(f"no galaxy is left by {cut!r} ({left}); widen the region, or check the selection or table")

    def show(self) -> None:
        """Log it as a small table."""
        width = max(len(cut) for cut, _ in self.steps)
        for cut, rows in self.steps:
            log.info("  %-*s %10s", width, cut, f"{rows:,}")

    def as_list(self) -> list[dict[str, str | int]]:
        """For the manifest's summary."""
        return [{"cut": cut, "rows": rows} for cut, rows in self.steps]


def keep_inside(rows: pa.Table, region: Region) -> pa.Table:
    """Rows inside the region."""
    return rows.filter(pa.array(region.contains(_numpy(rows, "ra"), _numpy(rows, "dec"))))


def with_position_ids(rows: pa.Table) -> pa.Table:
    """Rows with ids J<ra><dec> (deg, to 3.6 mas); of rows at one position, the one with the least redshift error."""
    positions = zip(rows["ra"].to_pylist(), rows["dec"].to_pylist(), strict=True)
    rows = rows.append_column("object_id", pa.array([f"J{ra:010.6f}{dec:+010.6f}" for ra, dec in positions]))
    _, position = np.unique(rows["object_id"].to_pylist(), return_inverse=True)
    best = _best_of_each(rows, position)
    return rows if len(best) == rows.num_rows else rows.take(pa.array(np.sort(best)))


def drop_duplicates(rows: pa.Table, radius_arcsec: float) -> pa.Table:
    """Of spectra closer than `radius_arcsec` with redshifts that agree, keep the one with the least error, then id.

    Rows without z_spec can't leak a redshift from one split to another, and stay. So do neighbours that the user's
    own `split` or `block` keeps together: in a deep field they are distinct galaxies of one group.
    """
    if radius_arcsec == 0 or "z_spec" not in rows.column_names:
        return rows
    z_spec = _numpy(rows, "z_spec")
    with_z = np.flatnonzero(np.isfinite(z_spec))
    spectra = rows.take(pa.array(with_z))
    galaxy = _same_galaxy(spectra, z_spec[with_z], radius_arcsec)
    several = np.flatnonzero(np.bincount(galaxy)[galaxy] > 1)
    if not len(several):
        return rows
    keep = np.ones(rows.num_rows, dtype=bool)
    keep[with_z[several]] = False
    keep[with_z[several[_best_of_each(spectra.take(pa.array(several)), galaxy[several])]]] = True
    return rows.filter(pa.array(keep))


def _same_galaxy(rows: pa.Table, z_spec: Floats, radius_arcsec: float) -> Indices:
    """A number for each row, the same for rows that a chain of close pairs with redshifts that agree connects.

    A pair that the user's own split or block keeps together does not count.
    """
    own = next((name for name in ("split", "block") if name in rows.column_names), None)
    label = np.zeros(rows.num_rows) if own is None else np.unique(_texts(rows, own), return_inverse=True)[1]
    ra, dec = np.radians(_numpy(rows, "ra")), np.radians(_numpy(rows, "dec"))
    row, group = _distinct(np.column_stack([ra, dec, z_spec, label]))
    ra, dec, z_spec, label = ra[row], dec[row], z_spec[row], label[row]
    place = np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    chord = 2 * np.sin(np.radians(radius_arcsec / 3600) / 2)
    # With redshift as a fourth coordinate, thousands of rows at one position make few pairs.
    by_redshift = np.log1p(z_spec) * (chord / np.log1p(1.01 * SAME_REDSHIFT))
    galaxy = np.arange(len(row))
    for one, other in _close_pairs(np.column_stack([place, by_redshift]), np.sqrt(2) * chord):
        z_first = np.where(row[one] < row[other], z_spec[one], z_spec[other])
        same = np.abs(z_spec[one] - z_spec[other]) <= SAME_REDSHIFT * (1 + z_first)
        same &= np.square(place[one] - place[other]).sum(axis=1) <= chord**2
        if own is not None:
            same &= label[one] != label[other]
        ends = galaxy[one[same]], galaxy[other[same]]
        links = coo_array((np.ones(len(ends[0])), ends), shape=(len(row), len(row)))
        galaxy = connected_components(links, directed=False)[1][galaxy]
    found: Indices = galaxy[group]
    if own is not None:  # rows that are the same in all stay apart where no other is linked to them
        alone = (np.bincount(galaxy)[galaxy] == 1)[group]
        found[alone] = len(row) + np.flatnonzero(alone)
    return found


def _distinct(values: Floats) -> tuple[Indices, Indices]:
    """The first row of each group of equal rows, and each row's group."""
    order = np.lexsort(values.T)
    new = np.ones(len(order), dtype=bool)
    new[1:] = (values[order[1:]] != values[order[:-1]]).any(axis=1)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    return order[new], group


def _close_pairs(points: Floats, radius: float) -> Iterator[tuple[Indices, Indices]]:
    """Row numbers of all pairs within the radius, some millions at a time."""
    tree = cKDTree(points)
    parts = 1 + int(tree.count_neighbors(tree, radius)) // PAIRS_AT_ONCE
    for part in range(parts):
        some = cKDTree(points[part::parts]).sparse_distance_matrix(tree, radius, output_type="ndarray")
        one, other = some["i"] * parts + part, some["j"]
        yield one[one < other], other[one < other]


def _best_of_each(rows: pa.Table, galaxy: Indices) -> Indices:
    """The best row of each galaxy: smallest redshift error (unknown ones last), then smallest id, then the first."""
    errors = _numpy(rows, "z_spec_err") if "z_spec_err" in rows.column_names else np.full(rows.num_rows, np.nan)
    ids = _texts(rows, "object_id")
    order = np.lexsort((ids, np.nan_to_num(errors, nan=np.inf), galaxy))
    starts = np.flatnonzero(np.diff(galaxy[order], prepend=-1))
    best: Indices = order[starts]
    return best


def _numpy(rows: pa.Table, name: str) -> Floats:
    """A column as float64, NaN where null."""
    values: Floats = rows[name].to_numpy().astype(np.float64)
    return values


def _texts(rows: pa.Table, name: str) -> npt.NDArray[np.str_]:
    return np.array([str(text) for text in rows[name].to_pylist()])
