"""SDSS's bands: wavelengths of Doi et al. 2010; extinction of Schlegel, Finkbeiner & Davis 1998, as SDSS uses it."""

from photoz.surveys.survey import Band

BANDS = (
    Band("u", 355.1, 5.155),
    Band("g", 468.6, 3.793),
    Band("r", 616.6, 2.751),
    Band("i", 748.0, 2.086),
    Band("z", 893.2, 1.479),
)
NAMES = tuple(band.name for band in BANDS)
