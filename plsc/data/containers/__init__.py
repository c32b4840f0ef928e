"""Formats of files with many images. plsc.data.sources uses them."""
