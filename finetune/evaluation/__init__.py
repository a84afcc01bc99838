"""Evaluation: inference, predictions, metrics, intervals, and what is derived from them."""
