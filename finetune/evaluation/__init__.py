"""Evaluation: predictions, scores, intervals and the verbs that recompute them."""
