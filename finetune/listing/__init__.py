"""The runs of a folder as a table."""
