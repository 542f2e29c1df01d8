"""Catalogues: which galaxies, how they were chosen, and which of them train, validate and test."""

from photoz.catalog.job import build_catalog
from photoz.catalog.settings import CatalogSettings

__all__ = ["CatalogSettings", "build_catalog"]
