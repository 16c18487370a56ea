"""The data set: searched, downloaded, and decoded once (`find`)."""
