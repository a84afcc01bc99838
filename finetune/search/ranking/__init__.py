"""Ranking of backbones: many pretrained ones scored on one's own images, from one pass over them each."""
