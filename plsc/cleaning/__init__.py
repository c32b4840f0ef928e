"""Finds errors in training data by the embeddings of a trained model (`plsc clean`). Needs NumPy only."""
