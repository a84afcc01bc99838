"""Comparison of runs: paired on the same images, with significance and a gate."""
