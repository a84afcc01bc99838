"""Finished runs combined into one, by their predictions or by their weights."""
