"""Reporting: what is shown of a run."""
