"""What generates the answers: the model in this process, or a server."""
