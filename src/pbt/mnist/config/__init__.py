"""The configuration: the original's JSON files, checked and resolved into one record (`record`)."""
