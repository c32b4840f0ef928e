"""Ranks: the rank of this process, which rank holds which class, and communication outside of programs."""
