"""A grid of runs, and how many runs at once are watched."""
