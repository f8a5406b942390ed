"""Runs that survive: their folder, their manifest, and the machine."""
