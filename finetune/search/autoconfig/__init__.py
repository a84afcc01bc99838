"""Automatic configuration (recipe=auto): what is chosen from facts about the images, the machine and the time."""
