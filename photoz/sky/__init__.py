"""A simulated sky that answers like SDSS's SkyServer: real galaxies' positions, redshifts and fluxes, drawn pixels."""

from photoz.sky.identity import DEFAULT_GALAXIES, SKY_VERSION, SkyIdentity
from photoz.sky.serving import open_embedded_sky, serve, sky_identity

__all__ = ["DEFAULT_GALAXIES", "SKY_VERSION", "SkyIdentity", "open_embedded_sky", "serve", "sky_identity"]
