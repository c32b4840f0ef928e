"""The optimizers of PLSC, one file each, found by their names (``optimizer.name``). Imports without Paddle."""
