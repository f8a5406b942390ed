"""A model's answers without ARM and with it."""
