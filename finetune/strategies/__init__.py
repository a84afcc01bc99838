"""Strategies: phases that say which layers move, when and how fast."""
