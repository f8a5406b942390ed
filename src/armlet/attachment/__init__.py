"""Attaches ARM to loaded models: finds the sites, replaces their modules, and passes positions to them at each call."""
