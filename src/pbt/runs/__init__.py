"""Runs: from an experiment to a finished run, and everything that reads one."""
