"""The configuration: the original's JSON files, read, checked and resolved into one record (`record`)."""
