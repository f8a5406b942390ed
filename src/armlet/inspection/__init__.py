"""Measures and draws the effect of policies on the activated gate of a layer."""
