"""The report's figures: each function takes arrays and returns PNG bytes."""
