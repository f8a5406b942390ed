"""What filler tokens do inside a layer."""
