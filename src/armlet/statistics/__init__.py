"""Every interval, test and measure of a distribution."""
