"""ARM inside other tools, a folder and an extra each, and what they share."""
