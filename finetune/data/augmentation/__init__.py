"""Augmentation: settings, the operations that timm does not have, and both in words."""
