"""How fast, how fresh and how good: measured, as tables. See `python -m benchmarks --help`."""
