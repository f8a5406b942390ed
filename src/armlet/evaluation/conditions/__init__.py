"""The conditions that are compared on the same items."""
