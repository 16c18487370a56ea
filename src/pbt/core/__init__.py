"""Decisions as pure functions over frozen records: standard library only, no I/O, no clock, no global state."""
