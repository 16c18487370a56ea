"""Storage of runs: an event log and immutable states, on disk with one writer and many readers, or in memory."""
