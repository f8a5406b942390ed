"""Measures the time that ARM costs."""
