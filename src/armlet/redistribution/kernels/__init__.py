"""Fast paths with the bits of the plain one. `backends` alone knows which there are."""
