"""Users' own tables of galaxies: formats, ids, units, checks."""
