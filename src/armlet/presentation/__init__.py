"""Presents results as figures, on the terminal, and in files."""
