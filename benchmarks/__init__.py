"""Benchmarks: ratios against something else in the same run, medians, never one absolute time alone."""
