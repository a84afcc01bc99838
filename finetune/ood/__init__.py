"""Inputs unlike the training images: a density of their features, or of logits, and from where on one is unlike."""
