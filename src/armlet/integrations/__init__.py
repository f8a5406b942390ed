"""ARM inside other tools, one file and one extra each."""
