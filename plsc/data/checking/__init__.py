"""The check of all training images: each decoded once, by several processes; the result as table, JSON and HTML."""
