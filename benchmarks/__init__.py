"""What photoz costs and how good it is, measured; `benchmarks/RESULTS.md` keeps what was seen."""
