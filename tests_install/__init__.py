"""What a user gets: the sdist and the wheel, checked, and installed where no checkout is (`make test-install`)."""
