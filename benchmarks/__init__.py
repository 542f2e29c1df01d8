"""What photoz costs and how good it is, measured; docs/results.md has the current figures."""
