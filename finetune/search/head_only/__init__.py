"""Trials that change nothing but the head, in one process."""
