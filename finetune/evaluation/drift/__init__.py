"""Drift: whether new images, and what a run predicts for them, are distributed like those of validation."""
