"""What ARM costs in time."""
