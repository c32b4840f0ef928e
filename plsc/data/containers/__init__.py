"""Files that hold many images: how each format is read and written. The sources that use them: plsc.data.sources."""
