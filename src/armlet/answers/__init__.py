"""What a model answers without ARM and with it."""
