"""Settings chosen on one part of the items, for the other part."""
