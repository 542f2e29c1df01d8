"""The embedded survey's catalogue: SDSS-like tables over 10,000 real galaxies and what surrounds them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from photoz.errors import BadInput
from photoz.sky import galaxies as sky
from photoz.sky.galaxies import GALAXY, QSO, STAR, SkyObjects
from photoz.sky.morphology import Shapes, draw_shapes
from photoz.sky.survey_photoz import estimate
from photoz.sky.tables import Roles, photo_table, photoz_table, spec_table

REAL_GALAXIES = 10_000
# Rows that a selection has to remove, as shares of the number of galaxies; the real survey's shares are similar.
STARS, QSOS = 0.015, 0.010
BAD_REDSHIFTS = 0.012  # zWarning != 0
REPEATED_SPECTRA = 0.015  # a second spectrum of the same galaxy: sciencePrimary = 0
NO_SPECTRUM = 0.040  # galaxies with photometry only
SECOND_DETECTIONS = 0.015  # the same galaxy on an overlapping field: mode = 2


@dataclass(frozen=True)
class Population:
    """The survey's tables, and the drawn objects with their shapes (row i of both is the same object)."""

    photo: pa.Table
    spec: pa.Table
    photoz: pa.Table
    objects: SkyObjects
    shapes: Shapes


def build_population(galaxies: int = REAL_GALAXIES, seed: int = 0) -> Population:
    """The survey of this many galaxies with good redshifts; the same for the same numbers, wherever it is built.

    Up to 10,000 they are a fixed subset of the real ones; beyond, real ones moved in redshift join them.
    """
    if galaxies < 100:
        raise BadInput(f"--galaxies {galaxies}: expected at least 100; the usual number is 10000")
    real = sky.real_galaxies()
    chosen = np.sort(np.random.default_rng([seed, 1]).permutation(len(real))[:galaxies])
    parts = [real.take(chosen)]
    if galaxies > len(real):
        from photoz.sky.extension import moved_galaxies  # fitting SEDs takes seconds

        parts.append(moved_galaxies(real, galaxies - len(real), np.random.default_rng([seed, 2])))
    objects, roles = _add_surroundings(sky.concatenate(parts), real, np.random.default_rng([seed, 3]))
    mags = objects.dereddened_mags()
    shapes = draw_shapes(mags[:, 2], mags[:, 1] - mags[:, 2], objects.z.clip(0.005), np.random.default_rng([seed, 4]))
    photo = photo_table(objects, shapes, roles.second_detection, np.random.default_rng([seed, 5]))
    spec = spec_table(objects, shapes, photo, roles, np.random.default_rng([seed, 6]))
    return Population(photo, spec, _photoz(objects, real, photo), objects, shapes)


def _add_surroundings(good: SkyObjects, real: SkyObjects, rng: np.random.Generator) -> tuple[SkyObjects, Roles]:
    """Stars, quasars and galaxies with bad or no redshifts beside the good ones, and who is observed twice."""
    count = len(good)

    def share(fraction: float) -> int:
        return max(1, round(fraction * count))

    bad, unobserved = share(BAD_REDSHIFTS), share(NO_SPECTRUM)
    objects = sky.concatenate(
        [
            good,
            sky.more_galaxies(real, bad, rng),
            sky.point_sources(real, STAR, share(STARS), rng),
            sky.point_sources(real, QSO, share(QSOS), rng),
            sky.more_galaxies(real, unobserved, rng),
        ]
    )
    row = np.arange(len(objects))
    return objects, Roles(
        with_spectrum=row < len(objects) - unobserved,
        bad_redshift=(row >= count) & (row < count + bad),
        repeated_spectrum=rng.choice(count, share(REPEATED_SPECTRA), replace=False),
        second_detection=rng.choice(count, share(SECOND_DETECTIONS), replace=False),
    )


def _photoz(objects: SkyObjects, real: SkyObjects, photo: pa.Table) -> pa.Table:
    """Photo-z of every galaxy from the real ones' redshifts, each left out of its own estimate."""
    rows = np.flatnonzero(objects.kind == GALAXY)
    # A galaxy drawn from a real one must not lean on that one's redshift either: its template is left out.
    left_out = objects.template[rows]
    estimates = estimate(objects.dereddened_mags()[rows], real.dereddened_mags(), real.z, left_out)
    return photoz_table(photo["objID"].to_numpy()[rows], estimates)
