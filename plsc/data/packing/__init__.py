"""`plsc pack`: writes the images of any data source into a container, resumable and verified."""
