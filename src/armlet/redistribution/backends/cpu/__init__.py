"""Rows on CPUs, compiled by numba."""
