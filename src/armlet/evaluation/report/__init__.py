"""From the items of a run to findings, tables, figures and a page."""
