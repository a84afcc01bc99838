"""Backbone choice: many pretrained backbones scored on one's own images, from one pass over them each."""
