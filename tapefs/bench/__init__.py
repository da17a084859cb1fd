"""Benchmarks: ratios to well-known programs, measured side by side in one run. `scripts/bench` runs them."""
