"""Users' own images: FITS, NPY, JPEG and PNG files."""
