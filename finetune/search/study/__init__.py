"""Trials: asked for, run, told how they ended, and found again."""
