"""Judging a model by its embeddings: verification, identification, their files and their picture. NumPy only."""
