"""A run directory: an event log and immutable states, one writer, many readers; and the same in memory."""
