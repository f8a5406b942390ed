"""The GPU backend, compiled by Triton."""
