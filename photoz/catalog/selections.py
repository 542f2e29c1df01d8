"""What each selection asks of SkyServer: named cuts in T-SQL, in the order in which attrition is reported.

Tables: `s` SpecObj (the view of primary spectra), `p` PhotoObj, `x` Photoz.
"""

from dataclasses import dataclass

import pyarrow as pa

from photoz.catalog.sampling import mixed_hash_sql
from photoz.catalog.schema import BANDS

SFD_R_BAND = 2.751  # A_r / E(B-V) behind SDSS's extinction columns (Schlegel, Finkbeiner & Davis 1998)


@dataclass(frozen=True)
class Cut:
    """A condition that galaxies must meet; `name` appears in the attrition table."""

    name: str
    sql: str


@dataclass(frozen=True)
class Selection:
    """A galaxy sample: cuts on spectra and photometry, and those that remain for galaxies without a spectrum."""

    name: str
    title: str
    spectroscopic: tuple[Cut, ...]
    photometric: tuple[Cut, ...] = ()


GALAXY_SPECTRUM = Cut("spectrum is that of a galaxy", "s.class = 'GALAXY'")
GOOD_REDSHIFT = Cut("redshift without warning, error above 0", "s.zWarning = 0 AND s.zErr > 0")
PRIMARY_GALAXY = Cut("matched to a primary, extended source", "p.mode = 1 AND p.type = 3")
# Missing magnitudes are -9999. Errors that large mean no detection in that band.
MEASURED = Cut(
    "magnitudes measured in u, g, r, i, z",
    " AND ".join(f"p.dered_{band} BETWEEN 0 AND 40 AND p.err_{band} BETWEEN 0 AND 10" for band in BANDS),
)
BRIGHT = Cut("dereddened Petrosian r up to 17.8", "p.petroMag_r - p.extinction_r BETWEEN 0 AND 17.8")

MGS = Selection(
    "mgs",
    "SDSS Main Galaxy Sample (Strauss et al. 2002), as in Pasquet et al. 2019",
    (
        GALAXY_SPECTRUM,
        GOOD_REDSHIFT,
        # GALAXY, GALAXY_BIG, GALAXY_BRIGHT_CORE
        Cut("target of the Main Galaxy Sample", "(s.legacy_target1 & 448) <> 0"),
        PRIMARY_GALAXY,
        MEASURED,
        BRIGHT,
        Cut("redshift up to 0.4", "s.z <= 0.4"),
    ),
    (Cut("extended source", "p.type = 3"), Cut("clean photometry", "p.clean = 1"), MEASURED, BRIGHT),
)

BOSS = Selection(
    "boss",
    "BOSS LOWZ and CMASS galaxies (Reid et al. 2016)",
    (
        GALAXY_SPECTRUM,
        GOOD_REDSHIFT,
        # GAL_LOZ, GAL_CMASS
        Cut("target of LOWZ or CMASS", "(s.boss_target1 & 3) <> 0"),
        PRIMARY_GALAXY,
        MEASURED,
        Cut("redshift 0.15 to 0.7", "s.z BETWEEN 0.15 AND 0.7"),
    ),
)

# Kept for comparison only. zOffset is the thickness in microns of the washer behind a fibre's hole, and velDisp
# exists only where a template of old stars fits: neither says anything about how good a redshift is.
SEED = Selection(
    "seed",
    "the reference student project's query, with its two mistaken cuts",
    (
        GALAXY_SPECTRUM,
        GOOD_REDSHIFT,
        PRIMARY_GALAXY,
        MEASURED,
        Cut("zOffset is 0 (mistaken: a washer's thickness)", "s.zOffset = 0"),
        Cut("velDisp above 0 (mistaken: red spheroids only)", "s.velDisp > 0"),
    ),
)

SELECTIONS = {selection.name: selection for selection in (MGS, SEED, BOSS)}

_PHOTOMETRIC_COLUMNS = {
    "objid": ("p.objID", pa.uint64()),
    "ra": ("p.ra", pa.float64()),
    "dec": ("p.dec", pa.float64()),
    **{f"mag_{band}": (f"p.dered_{band}", pa.float64()) for band in BANDS},
    **{f"mag_err_{band}": (f"p.err_{band}", pa.float64()) for band in BANDS},
    "extinction_r": ("p.extinction_r", pa.float64()),
    "run": ("p.run", pa.int32()),
    "camcol": ("p.camcol", pa.int32()),
    "field": ("p.field", pa.int32()),
    "z_phot_survey": ("x.z", pa.float64()),
}
_SPECTROSCOPIC_COLUMNS = {
    "specobjid": ("s.specObjID", pa.uint64()),
    "z_spec": ("s.z", pa.float64()),
    "z_spec_err": ("s.zErr", pa.float64()),
}


@dataclass(frozen=True)
class SkyQuery:
    """One selection on one part of the sky, as queries: how many rows each cut leaves, and the rows by slices of hash.

    `cover` is a T-SQL condition on positions; None for the whole survey.
    """

    first_step: str
    source: str
    cuts: tuple[Cut, ...]
    columns: dict[str, tuple[str, pa.DataType]]
    cover: str | None

    @property
    def schema(self) -> pa.Schema:
        """Columns of the replies."""
        return pa.schema([(name, kind) for name, (_, kind) in self.columns.items()])

    def count_sql(self, cuts: int) -> str:
        """How many rows the first `cuts` cuts leave."""
        return f"SELECT COUNT(*) AS n FROM {self.source}{self._where(self.cuts[:cuts])}"

    def page_count_sql(self, low: int, high: int) -> str:
        """How many selected rows have a mixed hash from `low` up to, not including, `high`."""
        return f"SELECT COUNT(*) AS n FROM {self.source}{self._where(self.cuts, low, high)}"

    def page_sql(self, low: int, high: int) -> str:
        """The selected rows with a mixed hash from `low` up to, not including, `high`."""
        columns = ", ".join(f"{expression} AS {name}" for name, (expression, _) in self.columns.items())
        source = f"{self.source} LEFT JOIN Photoz AS x ON x.objID = p.objID"
        return f"SELECT {columns} FROM {source}{self._where(self.cuts, low, high)}"

    def _where(self, cuts: tuple[Cut, ...], low: int | None = None, high: int | None = None) -> str:
        conditions = [self.cover] if self.cover else []
        conditions += [f"({cut.sql})" for cut in cuts]
        if low is not None and high is not None:
            conditions.append(f"{mixed_hash_sql('p.objID')} BETWEEN {low} AND {high - 1}")
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def spectroscopic_query(selection: Selection, cover: str | None) -> SkyQuery:
    """Galaxies with a spectrum; `cover` is a condition on s.ra and s.dec."""
    return SkyQuery(
        first_step="primary spectra" + (" around the region" if cover else ""),
        source="SpecObj AS s LEFT JOIN PhotoObj AS p ON p.objID = s.bestObjID",
        cuts=selection.spectroscopic,
        columns=_PHOTOMETRIC_COLUMNS | _SPECTROSCOPIC_COLUMNS,
        cover=cover,
    )


def photometric_query(selection: Selection, cover: str | None) -> SkyQuery:
    """Galaxies with or without a spectrum, by their photometry alone; `cover` is a condition on p.ra and p.dec."""
    return SkyQuery(
        first_step="sources" + (" around the region" if cover else ""),
        source="PhotoObj AS p",
        cuts=(Cut("primary source", "p.mode = 1"), *selection.photometric),
        columns=_PHOTOMETRIC_COLUMNS,
        cover=cover,
    )
