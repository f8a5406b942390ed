"""What a model is asked: questions, and the fillers inserted into them."""
