"""Finished runs joined to one: by their answers, or by their weights."""
