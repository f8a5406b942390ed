"""Runs that can be interrupted and resumed: folder, manifest, and machine."""
