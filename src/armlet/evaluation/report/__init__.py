"""Turns the answers of a run into findings, tables, figures and a page."""
