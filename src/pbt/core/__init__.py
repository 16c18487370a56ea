"""The decisions: pure functions and frozen records. Standard library only, no I/O, no clock, no global state."""
