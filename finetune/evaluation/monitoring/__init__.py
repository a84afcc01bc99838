"""Monitoring: whether new images, and what a run says of them, are like those that it was made with."""
