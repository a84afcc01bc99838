"""Decoding and augmentation on the device that trains."""
