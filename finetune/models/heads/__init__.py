"""Heads: from pooled features to logits, and the solvers that fit a linear one exactly."""
