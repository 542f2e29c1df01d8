"""SDSS: SkyServer's SQL and its JPEG cutouts."""
