"""SDSS survey geometry: great-circle stripes, camera columns, fields, and the ids built on them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from photoz.sky.request import NATIVE_SCALE_ARCSEC

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NODE_DEG = 95.0  # every SDSS great circle crosses the equator at RA 95
STRIPE_STEP_DEG = 2.5
STRIPES = 72  # 180 deg of inclination
_COLUMN_DEG = STRIPE_STEP_DEG / 12  # two strips of six camera columns fill a stripe
_FIELD_DEG = 1361 * NATIVE_SCALE_ARCSEC / 3600
_SEGMENT_DEG = 120.0  # a run covers this much of a stripe, so that field numbers stay below 1000
RERUN = 301


@dataclass(frozen=True)
class StripePosition:
    """Great-circle coordinates (deg) of sky positions on their nearest stripe; `stripe` counts from 0 to 71."""

    stripe: Ints
    mu: Floats
    nu: Floats


def stripe_position(ra: npt.ArrayLike, dec: npt.ArrayLike) -> StripePosition:
    """Nearest stripe and (mu, nu) in degrees of positions in degrees (Stoughton et al. 2002, section 3.2.2)."""
    ra_rad, dec_rad = np.radians(np.asarray(ra, float) - NODE_DEG), np.radians(np.asarray(dec, float))
    y, z = np.sin(ra_rad) * np.cos(dec_rad), np.sin(dec_rad)
    tilt = np.degrees(np.arctan2(z, y))
    stripe = np.asarray(np.floor(tilt / STRIPE_STEP_DEG + 0.5), np.int64) % STRIPES
    return on_stripe(ra, dec, stripe)


def on_stripe(ra: npt.ArrayLike, dec: npt.ArrayLike, stripe: npt.ArrayLike) -> StripePosition:
    """(mu, nu) of positions on the given stripes, whether or not it is the nearest."""
    ra_rad, dec_rad = np.radians(np.asarray(ra, float) - NODE_DEG), np.radians(np.asarray(dec, float))
    number = np.asarray(stripe, np.int64)
    tilt = np.radians(number * STRIPE_STEP_DEG)
    x, y, z = np.cos(ra_rad) * np.cos(dec_rad), np.sin(ra_rad) * np.cos(dec_rad), np.sin(dec_rad)
    along = y * np.cos(tilt) + z * np.sin(tilt)
    across = z * np.cos(tilt) - y * np.sin(tilt)
    mu = (np.degrees(np.arctan2(along, x)) + NODE_DEG) % 360.0
    return StripePosition(number, mu, np.degrees(np.arcsin(np.clip(across, -1.0, 1.0))))


def north_angle(ra: float, dec: float, stripe: int) -> float:
    """Angle (radians) by which east-north axes turn into the stripe's (mu, nu) axes at a position."""
    step = 1e-4 if dec < 89.0 else -1e-4
    here, north = on_stripe(ra, dec, stripe), on_stripe(ra, dec + step, stripe)
    d_mu = (float(north.mu - here.mu) + 180.0) % 360.0 - 180.0
    d_nu = float(north.nu - here.nu)
    sign = np.sign(step)
    return float(np.arctan2(-sign * d_mu * np.cos(np.radians(float(here.nu))), sign * d_nu))


@dataclass(frozen=True)
class FieldAddress:
    """Run, camera column and field that a position falls in, numbered like the survey's."""

    run: Ints
    camcol: Ints
    field: Ints


def field_address(position: StripePosition) -> FieldAddress:
    """The field of each position; runs are numbered from the stripe, its strip and its 120 deg segment."""
    column = np.clip(np.floor((position.nu + STRIPE_STEP_DEG / 2) / _COLUMN_DEG), 0, 11).astype(np.int64)
    segment = np.floor(position.mu / _SEGMENT_DEG).astype(np.int64)
    run = 745 + 17 * (3 * (2 * position.stripe + column % 2) + segment)
    field = 11 + np.floor((position.mu - segment * _SEGMENT_DEG) / _FIELD_DEG).astype(np.int64)
    return FieldAddress(run, column // 2 + 1, field)


def pack_objid(address: FieldAddress, obj: Ints) -> npt.NDArray[np.uint64]:
    """objID as CAS packs it: sky version, rerun, run, camcol, field, object (fPhotoDescription's bit layout)."""
    packed = (2 << 59) | (RERUN << 48) | (address.run << 32) | (address.camcol << 29) | (address.field << 16) | obj
    return packed.astype(np.uint64)


def pack_specobjid(plate: Ints, mjd: Ints, fiber: Ints, run2d: Ints) -> npt.NDArray[np.uint64]:
    """specObjID as CAS packs it: plate, fiber, mjd - 50000, run2d; plates >= 8192 exceed signed 64 bits."""
    parts = [part.astype(np.uint64) for part in (plate, fiber, mjd - 50_000, run2d)]
    shifts = [np.uint64(bits) for bits in (50, 38, 24, 10)]
    packed = parts[0] << shifts[0]
    for part, shift in zip(parts[1:], shifts[1:], strict=True):
        packed = packed | part << shift
    return packed


def unit_vectors(ra: npt.ArrayLike, dec: npt.ArrayLike) -> Floats:
    """Cartesian unit vectors, shape (n, 3), of positions in degrees."""
    ra_rad, dec_rad = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(dec_rad) * np.cos(ra_rad), np.cos(dec_rad) * np.sin(ra_rad), np.sin(dec_rad)], axis=-1)
