"""Model files: reads one layer or a whole model from a folder or a hub, and identifies a model."""
