"""The data set: found, downloaded or fallen back from, and decoded once (`find`)."""
