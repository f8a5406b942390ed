"""Tasks: items with a question and a gold answer."""
