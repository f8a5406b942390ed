"""What is compared on the same items."""
