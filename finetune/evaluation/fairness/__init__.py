"""Fairness: metrics per group, the gaps between groups, and whether chance makes them."""
