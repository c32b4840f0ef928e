"""`plsc pack`: the images of any data source, written into one container, resumable and read back."""
