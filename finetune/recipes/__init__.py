"""Recipes: what is chosen for somebody who has not, from what is known of the images, the machine and the time."""
