"""Networks, redshift PDFs and their calibration. Modules that need torch are imported by name, not from here."""
