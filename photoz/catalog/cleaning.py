"""From rows of any source to a clean sample: region, duplicates, limit; each step recorded."""

import logging
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from photoz.catalog.regions import Region
from photoz.errors import BadInput

log = logging.getLogger("photoz.catalog")

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
    first, second = _close_pairs(_numpy(rows, "ra")[with_z], _numpy(rows, "dec")[with_z], radius_arcsec)
    agree = np.abs(z_spec[with_z][first] - z_spec[with_z][second]) <= SAME_REDSHIFT * (1 + z_spec[with_z][first])
    agree &= _parted(rows.take(pa.array(with_z)), first, second)
    first, second = first[agree], second[agree]
    if not len(first):
        return rows
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(with_z), len(with_z)))
    _, galaxy = connected_components(links, directed=False)
    keep = np.ones(rows.num_rows, dtype=bool)
    keep[with_z] = False
    keep[with_z[_best_of_each(rows.take(pa.array(with_z)), galaxy)]] = True
    return rows.filter(pa.array(keep))


def _close_pairs(
    ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64], radius_arcsec: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row numbers of all pairs closer than the radius."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    unit_vectors = np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    chord = 2 * np.sin(np.radians(radius_arcsec / 3600) / 2)
    pairs = cKDTree(unit_vectors).query_pairs(chord, output_type="ndarray")
    return pairs[:, 0], pairs[:, 1]


def _parted(rows: pa.Table, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which pairs the user's own split or block does not keep together; all of them where there is neither."""
    own = next((name for name in ("split", "block") if name in rows.column_names), None)
    if own is None:
        return np.ones(len(first), dtype=np.bool_)
    labels = np.array(rows[own].to_pylist(), dtype=object)
    return np.asarray(labels[first] != labels[second], dtype=np.bool_)


def _best_of_each(rows: pa.Table, galaxy: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """The best row of each galaxy: smallest redshift error (unknown ones last), then smallest id, then the first."""
    errors = _numpy(rows, "z_spec_err") if "z_spec_err" in rows.column_names else np.full(rows.num_rows, np.nan)
    ids = np.array(rows["object_id"].to_pylist())
    order = np.lexsort((ids, np.nan_to_num(errors, nan=np.inf), galaxy))
    starts = np.flatnonzero(np.diff(galaxy[order], prepend=-1))
    best: npt.NDArray[np.int64] = order[starts]
    return best


def _numpy(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column as float64, NaN where null."""
    values: npt.NDArray[np.float64] = rows[name].to_numpy().astype(np.float64)
    return values
