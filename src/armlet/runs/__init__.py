"""Runs that can be interrupted and continued: their folder, their manifest, and the machine."""
