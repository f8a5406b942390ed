"""What a policy does to the activated gate of a layer."""
