"""Optical bands by wavelength, and how colour images show them."""

OPTICAL = ("u", "g", "r", "i", "z", "y")
RGB = ("i", "r", "g")
"""The bands that colour images of the optical sky show as red, green and blue (Lupton et al. 2004)."""
