"""Executors: where rounds are trained. In this process, in spawned worker processes, or on a Ray cluster."""
