"""Pools: where jobs run, and what sees that they end."""
