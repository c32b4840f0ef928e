"""The built-in metrics. Every file here is imported automatically."""
