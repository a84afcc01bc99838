"""Heads: what turns pooled features into logits, and the solvers that fit a linear one exactly."""
