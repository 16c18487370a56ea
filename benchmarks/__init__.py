"""Benchmarks: medians of ratios to a reference in the same run, never an absolute time alone."""
