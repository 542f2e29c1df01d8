"""PhotoObjAll, SpecObjAll and Photoz rows of the embedded survey, with the survey's own column names."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from photoz.sky.galaxies import GALAXY, QSO, STAR, SkyObjects
from photoz.sky.morphology import Shapes
from photoz.sky.photometry import BANDS, MISSING, asinh_mag, asinh_mag_err
from photoz.sky.stripes import (
    RERUN,
    field_address,
    pack_objid,
    pack_specobjid,
    stripe_position,
    unit_vectors,
)
from photoz.sky.survey_photoz import PhotozEstimates

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

# legacy_target1 and boss_target1 bits (SDSS bitmasks page).
TARGET_GALAXY, TARGET_GALAXY_BIG, TARGET_LRG, TARGET_QSO = 64, 128, 32, 4
BOSS_LOWZ, BOSS_CMASS = 1, 2
_CLASS_NAMES = {GALAXY: "GALAXY", STAR: "STAR", QSO: "QSO"}
_PSF_HALF_LIGHT_ARCSEC = 0.72


@dataclass(frozen=True)
class Roles:
    """Rows of the drawn objects: which have a spectrum, which have a suspect one, and which are seen twice."""

    with_spectrum: Flags
    bad_redshift: Flags
    repeated_spectrum: Ints
    second_detection: Ints


def _bands(name: str, values: Floats) -> dict[str, npt.NDArray[np.float32]]:
    """Columns name_u to name_z from an array of shape (n, 5)."""
    return {f"{name}_{band}": values[:, at].astype(np.float32) for at, band in enumerate(BANDS)}


def _distinct(ids: Ints, address_key: Ints) -> Ints:
    """Object numbers within their fields, raised where two objects of a field would share one."""
    numbers = ids.copy()
    while True:
        key = address_key * 65536 + numbers
        _, first = np.unique(key, return_index=True)
        if len(first) == len(key):
            return numbers
        again = np.ones(len(key), bool)
        again[first] = False
        numbers[again] = (numbers[again] + 1) % 65536


def photo_table(objects: SkyObjects, shapes: Shapes, seen_twice: Ints, rng: np.random.Generator) -> pa.Table:
    """PhotoObjAll: one row an object, in order, then a mode 2 row for each object that is seen twice."""
    row = np.concatenate([np.arange(len(objects)), seen_twice])
    primary = np.arange(len(row)) < len(objects)
    rows = objects.take(row)
    position = stripe_position(rows.ra, rows.dec)
    address = field_address(position)
    start = 14 + np.floor(np.abs(rows.ra * 7919.0 + rows.dec * 104_729.0)).astype(np.int64) % 600
    field_key = (address.run * 8 + address.camcol) * 4096 + address.field
    obj = _distinct(start, field_key)
    xyz = unit_vectors(rows.ra, rows.dec)
    columns: dict[str, object] = {
        "objID": pack_objid(address, obj).astype(np.int64),
        "run": address.run.astype(np.int16),
        "rerun": np.full(len(row), RERUN, np.int16),
        "camcol": address.camcol.astype(np.int16),
        "field": address.field.astype(np.int16),
        "obj": obj.astype(np.int32),
        "mode": np.where(primary, 1, 2).astype(np.int16),
        "nChild": np.zeros(len(row), np.int16),
        "type": np.where(rows.kind == GALAXY, 3, 6).astype(np.int16),
        "clean": (rng.random(len(row)) < 0.97).astype(np.int32),
        "insideMask": np.zeros(len(row), np.int16),
        "flags": np.full(len(row), 0x10000010, np.int64),  # BINNED1 | STATIONARY
        "ra": rows.ra,
        "dec": rows.dec,
        "cx": xyz[:, 0],
        "cy": xyz[:, 1],
        "cz": xyz[:, 2],
        **_galactic(xyz),
        **_magnitudes(rows, rng),
        **_sizes(rows, shapes, row),
    }
    return pa.table(columns)


def _galactic(xyz: Floats) -> dict[str, Floats]:
    """Galactic longitude and latitude in degrees (J2000 pole and centre)."""
    rotation = np.array(
        [
            [-0.0548755604, -0.8734370902, -0.4838350155],
            [0.4941094279, -0.4448296300, 0.7469822445],
            [-0.8676661490, -0.1980763734, 0.4559837762],
        ]
    )
    x, y, z = (xyz @ rotation.T).T
    return {"l": np.degrees(np.arctan2(y, x)) % 360.0, "b": np.degrees(np.arcsin(np.clip(z, -1, 1)))}


def _magnitudes(rows: SkyObjects, rng: np.random.Generator) -> dict[str, object]:
    """Asinh magnitudes and errors; a Petrosian magnitude that could not be measured is -9999."""
    model, model_err = asinh_mag(rows.flux), asinh_mag_err(rows.flux, rows.flux_err)
    petro_good = rows.petro_flux > 0
    petro = np.where(petro_good, asinh_mag(rows.petro_flux), MISSING)
    petro_err = np.where(petro_good, asinh_mag_err(rows.petro_flux, rows.petro_flux_err), MISSING)
    cmodel = model + rng.normal(0, 0.01, model.shape)
    psf = model + np.where(rows.kind == GALAXY, 0.7, 0.0)[:, None] + rng.normal(0, 0.02, model.shape)
    plain = {band: model[:, at].astype(np.float32) for at, band in enumerate(BANDS)}
    plain_err = {f"err_{band}": model_err[:, at].astype(np.float32) for at, band in enumerate(BANDS)}
    return {
        **plain,
        **plain_err,
        **_bands("modelMag", model),
        **_bands("modelMagErr", model_err),
        **_bands("petroMag", petro),
        **_bands("petroMagErr", petro_err),
        **_bands("cModelMag", cmodel),
        **_bands("cModelMagErr", model_err),
        **_bands("psfMag", psf),
        **_bands("psfMagErr", model_err),
        **_bands("fiberMag", psf + 0.1),
        **_bands("dered", model - rows.extinction),
        **_bands("extinction", rows.extinction),
        **_bands("modelFlux", rows.flux),
        **_bands("modelFluxIvar", rows.flux_err**-2.0),
        **_bands("petroFlux", rows.petro_flux),
        **_bands("petroFluxIvar", rows.petro_flux_err**-2.0),
    }


def _sizes(rows: SkyObjects, shapes: Shapes, row: Ints) -> dict[str, object]:
    """Petrosian and profile radii (arcsec) that the seeing leaves of each object's shape."""
    point = rows.kind != GALAXY
    half_light = np.where(point, 0.0, shapes.r50_arcsec[row])
    early = shapes.early[row] & ~point
    # A Petrosian aperture misses a spheroid's wings, and a bulge draws a disk's half-light radius in.
    r50 = np.hypot(np.where(early, 0.72, 1 - 0.6 * shapes.bulge[row]) * half_light, _PSF_HALF_LIGHT_ARCSEC)
    r90 = r50 * np.where(point, 1.9, np.where(early, 3.1, 2.35))
    axis_ratio = np.where(point, 1.0, shapes.axis_ratio[row])
    angle = np.degrees(shapes.angle[row])
    columns: dict[str, object] = {}
    for name, radius in (("petroRad", 2.25 * r50), ("petroR50", r50), ("petroR90", r90)):
        columns |= _bands(name, np.repeat(radius[:, None], 5, axis=1))
    for name, factor in (("deVRad", 1.3), ("expRad", 0.9)):
        columns |= _bands(name, np.repeat((factor * half_light)[:, None], 5, axis=1))
    columns |= _bands("fracDeV", np.repeat(np.where(early, 0.95, shapes.bulge[row])[:, None], 5, axis=1))
    columns |= _bands("deVAB", np.repeat(axis_ratio[:, None], 5, axis=1))
    columns |= _bands("expAB", np.repeat(axis_ratio[:, None], 5, axis=1))
    columns |= _bands("deVPhi", np.repeat(angle[:, None], 5, axis=1))
    columns |= _bands("expPhi", np.repeat(angle[:, None], 5, axis=1))
    return columns


def _targets(objects: SkyObjects) -> tuple[Ints, Ints]:
    """legacy_target1 and boss_target1: the Main Galaxy Sample (Strauss et al. 2002) and LOWZ (Reid et al. 2016)."""
    mags = objects.dereddened_mags()
    petro_r = asinh_mag(objects.petro_flux)[:, 2] - objects.extinction[:, 2]
    petro_r[objects.petro_flux[:, 2] <= 0] = 99.0
    galaxy = objects.kind == GALAXY
    g_r, r_i = mags[:, 1] - mags[:, 2], mags[:, 2] - mags[:, 3]
    c_parallel = 0.7 * g_r + 1.2 * (r_i - 0.18)
    c_perpendicular = r_i - g_r / 4 - 0.18
    main = galaxy & (petro_r <= 17.77)
    lowz = galaxy & (mags[:, 2] < 13.5 + c_parallel / 0.3) & (np.abs(c_perpendicular) < 0.2) & (mags[:, 2] > 16.0)
    legacy = np.where(main, TARGET_GALAXY, 0) + np.where(galaxy & ~main, TARGET_LRG, 0)
    legacy += np.where(objects.kind == QSO, TARGET_QSO, 0)
    return legacy, np.where(lowz, BOSS_LOWZ, 0)


@dataclass(frozen=True)
class _Plates:
    plate: Ints
    mjd: Ints
    fiber: Ints
    run2d: Ints


def _assign_plates(objects: SkyObjects, boss: Flags) -> _Plates:
    """Plates by 3 deg sky cells: SDSS ones from 266 with 640 fibers, BOSS and eBOSS ones from 3586 with 1000.

    Every other BOSS plate is an eBOSS one from 8192 on, whose specObjIDs don't fit signed 64 bits.
    """
    band = np.floor((objects.dec + 90) / 3).astype(np.int64)
    cell = band * 1000 + np.floor(objects.ra / 3).astype(np.int64)
    plate, fiber = np.empty(len(objects), np.int64), np.empty(len(objects), np.int64)
    for members, fibers in ((~boss, 640), (boss, 1000)):
        rows = np.flatnonzero(members)
        rows = rows[np.argsort(cell[rows], kind="stable")]
        _, first, which = np.unique(cell[rows], return_index=True, return_inverse=True)
        rank = np.arange(len(rows)) - first[which]
        number = np.unique(which * 100_000 + rank // fibers, return_inverse=True)[1]
        fiber[rows] = 1 + (rank % fibers * 7) % fibers if fibers % 7 else 1 + rank % fibers
        plate[rows] = 266 + number if fibers == 640 else np.where(number % 2 == 0, 3586, 8192) + number // 2
    mjd = np.where(boss, 55_200 + plate % 3000, 51_600 + plate % 3000)
    return _Plates(plate, mjd, fiber, np.where(boss, 1302, 26))


def spec_table(
    objects: SkyObjects, shapes: Shapes, photo: pa.Table, roles: Roles, rng: np.random.Generator
) -> pa.Table:
    """SpecObjAll: a row for each object with a spectrum, then the repeated spectra (sciencePrimary = 0)."""
    first = np.flatnonzero(roles.with_spectrum)
    row = np.concatenate([first, roles.repeated_spectrum])
    primary = np.arange(len(row)) < len(first)
    rows = objects.take(row)
    legacy, lowz = _targets(rows)
    # BOSS took what the Main Galaxy Sample left, and some luminous red galaxies anew.
    anew = (rows.z > 0.15) & (rng.random(len(row)) < 0.3)
    boss = (rows.kind == GALAXY) & (lowz > 0) & ((legacy != TARGET_GALAXY) | anew)
    plates = _assign_plates(rows, boss)
    plates.mjd[~primary] += 400
    bad = roles.bad_redshift[row]
    z_err = np.clip(2.0e-5 * np.exp(0.45 * rng.standard_normal(len(row))), 3e-6, None)
    z = rows.z + np.where(primary, 0.0, z_err * rng.standard_normal(len(row)))
    columns: dict[str, object] = {
        "specObjID": pack_specobjid(plates.plate, plates.mjd, plates.fiber, plates.run2d),
        "bestObjID": photo["objID"].to_numpy()[row],
        "plate": plates.plate.astype(np.int16),
        "mjd": plates.mjd.astype(np.int32),
        "fiberID": plates.fiber.astype(np.int16),
        "run2d": np.where(boss, "v5_13_2", "26"),
        "survey": np.where(boss, "boss", "sdss"),
        "instrument": np.where(boss, "BOSS", "SDSS"),
        "programname": np.where(boss, "boss", "legacy"),
        "sciencePrimary": primary.astype(np.int16),
        "ra": rows.ra,
        "dec": rows.dec,
        "z": np.where(bad, np.abs(rng.normal(0.3, 0.4, len(row))), z).astype(np.float32),
        "zErr": np.where(bad, 1e-3, z_err).astype(np.float32),
        "zWarning": np.where(bad, 4, 0).astype(np.int32),
        "class": np.array([_CLASS_NAMES[kind] for kind in rows.kind.tolist()]),
        "subClass": np.where(rows.kind == GALAXY, np.where(shapes.early[row], "", "STARFORMING"), ""),
        "legacy_target1": np.where(boss, 0, legacy).astype(np.int64),
        "legacy_target2": np.zeros(len(row), np.int64),
        "special_target1": np.zeros(len(row), np.int64),
        "boss_target1": np.where(boss, lowz, 0).astype(np.int64),
        "snMedian": np.clip(rng.lognormal(2.6, 0.4, len(row)), 1, 80).astype(np.float32),
        **_spectrum_extras(rows, shapes, row, rng),
    }
    return pa.table(columns)


def _spectrum_extras(rows: SkyObjects, shapes: Shapes, row: Ints, rng: np.random.Generator) -> dict[str, object]:
    """velDisp (km/s; only old spheroids have one, 0 elsewhere) and zOffset (the fibre's washer, microns)."""
    spheroid = (rows.kind == GALAXY) & shapes.early[row]
    dispersion = np.clip(rng.lognormal(np.log(190.0), 0.25, len(row)), 70, 420)
    error = np.clip(0.05 * dispersion * np.exp(0.4 * rng.standard_normal(len(row))), 2, None)
    return {
        "velDisp": np.where(spheroid, dispersion, 0.0).astype(np.float32),
        "velDispErr": np.where(spheroid, error, 0.0).astype(np.float32),
        "zOffset": np.where(rng.random(len(row)) < 0.9, 0.0, 300.0).astype(np.float32),
    }


def photoz_table(objid: Ints, estimates: PhotozEstimates) -> pa.Table:
    """Photoz: the survey's photometric redshift of each galaxy and its error."""
    count = len(objid)
    return pa.table(
        {
            "objID": objid,
            "z": estimates.z.astype(np.float32),
            "zErr": estimates.z_err.astype(np.float32),
            "nnCount": estimates.neighbours.astype(np.int16),
            "nnVol": (estimates.radius**5).astype(np.float32),
            "photoErrorClass": np.ones(count, np.int32),
            "nnIsInside": np.ones(count, np.int32),
            "nnAvgZ": estimates.neighbour_z.astype(np.float32),
        }
    )
