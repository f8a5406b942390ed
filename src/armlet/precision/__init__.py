"""What rounding the input of `down` to few bits costs, and what can be done about it."""
