"""Peers measured side by side, in one run: ratios, never bare seconds. `python -m benchmarks --help`."""
