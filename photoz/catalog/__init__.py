"""Catalogues: which galaxies, how they were chosen, and which of them train, validate and test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from photoz.catalog.settings import CatalogSettings

if TYPE_CHECKING:
    from photoz.artifacts import Destination, Outcome

__all__ = ["CatalogSettings", "build_catalog"]


def build_catalog(settings: CatalogSettings, dest: Destination) -> Outcome:
    """Build a catalogue and commit it, or do this slice's share of its pages.

    Raises BadInput for settings or tables that can't work, TryAgain when the survey does not answer.
    """
    from photoz.catalog import job  # astropy and astroquery take seconds to import: --help does without

    return job.build_catalog(settings, dest)
