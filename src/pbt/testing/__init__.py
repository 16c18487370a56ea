"""Test tools for users: contract suites for stores, executors and strategies, invariants of runs, and toy problems."""
