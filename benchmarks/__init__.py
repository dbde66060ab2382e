"""Peers measured side by side in one run. The figures are ratios, never bare seconds. `python -m benchmarks --help`."""
