"""Modules of tools/make_glyphs.py: fonts, charsets, drawing, pairs, and writing the whole set."""
