"""Measures the effect of filler tokens inside a layer."""
