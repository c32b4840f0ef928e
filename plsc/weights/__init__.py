"""Weights of other projects: reading them, their names, what their models compute, and files that they can load."""
