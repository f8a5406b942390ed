"""What shuts a program in: run outside armlet, in an interpreter of its own, with the standard library alone."""
