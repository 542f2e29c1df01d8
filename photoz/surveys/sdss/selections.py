"""What each selection asks of SkyServer: named cuts in T-SQL, in the order in which attrition is reported.

Tables: `s` SpecObj (the view of primary spectra), `p` PhotoObj, `x` Photoz.
"""

from dataclasses import dataclass

from photoz.surveys.sdss.bands import NAMES


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
    " AND ".join(f"p.dered_{band} BETWEEN 0 AND 40 AND p.err_{band} BETWEEN 0 AND 10" for band in NAMES),
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
