"""Labelled images: tables, splits, decoding, transforms and batches."""
