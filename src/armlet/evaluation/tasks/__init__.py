"""What is asked: items with a gold answer."""
