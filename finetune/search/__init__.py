"""Search: many runs from one command."""
