"""Where ARM acts: the sites of a loaded model, the module that stands there, and how each call reaches it."""
