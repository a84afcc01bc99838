"""What varies in a search, and how it is written."""
