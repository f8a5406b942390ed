"""What a model is asked: questions, and fillers in them."""
