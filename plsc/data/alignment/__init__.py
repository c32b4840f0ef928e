"""Five-point alignment of face images: `plsc align`."""
