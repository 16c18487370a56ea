"""Callbacks that hand a run to other tools; one file each, each importing its tool only when it is used."""
