"""Runs: definition, execution, results, export and replay."""
