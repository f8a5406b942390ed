"""Pages of the reference that are generated from what they describe."""
