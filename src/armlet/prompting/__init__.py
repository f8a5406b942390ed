"""What a model is asked: prompts, and fillers in them."""
