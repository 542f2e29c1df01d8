"""Photometric redshifts from images of galaxies, as batch jobs over an object store."""

__version__ = "0.1.0"
