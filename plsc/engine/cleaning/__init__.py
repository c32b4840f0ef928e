"""`plsc clean`: the embeddings of the training data and of the verification sets."""
