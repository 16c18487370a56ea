"""Where rounds are trained: one task at a time here, in spawned workers, or further away."""
