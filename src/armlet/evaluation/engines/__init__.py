"""The engines that generate answers: the model in this process, or a server."""
