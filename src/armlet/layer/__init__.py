"""Where it happens: sites in a model, and ARM in them."""
