"""Model files: one layer out of a folder or a hub, a whole model, and which model it is."""
