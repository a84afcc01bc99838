"""Explanations: attribution maps over the image, and the training images that are most similar."""
