"""Weights of other projects: reading them, their names, what their nets compute, and files that they can load."""
