"""Measures the cost of rounding the input of `down` to few bits, and of methods that reduce it."""
