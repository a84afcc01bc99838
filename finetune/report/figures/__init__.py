"""Drawings of a run's curves and tables, as blocks of a page."""
