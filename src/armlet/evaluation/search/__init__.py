"""Searches for settings on one part of the items, and measures the best one on the other part."""
