"""Rows on GPUs, compiled by Triton."""
