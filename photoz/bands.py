"""Bands that colour images show."""

RGB = ("i", "r", "g")
"""The optical bands that are shown as red, green and blue (Lupton et al. 2004)."""
