"""ROC AUC and average precision of one class under many weightings of the images at once.

It decides how ties are treated (as scikit-learn does with sample_weight); what the weights mean is the caller's.
"""

import math

import numpy as np


class Ranking:
    """The images in order of falling score, prepared once so that each weighting costs one cumulative sum."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        """Sort the (N,) scores and find where the tied group of each positive image begins and ends."""
        self.order = np.argsort(-scores, kind="stable")
        ordered = -scores[self.order]
        self.where = np.flatnonzero(positive[self.order])
        held = ordered[self.where]
        self.start = np.searchsorted(ordered, held, side="left")
        self.end = np.searchsorted(ordered, held, side="right")
        self.positive_start = np.searchsorted(held, held, side="left")
        self.positive_end = np.searchsorted(held, held, side="right")

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give the area under the ROC curve and the average precision for (N, R) weights.

        Returns:
            Two (R,) float64 arrays: ROC AUC, NaN where a side has no weight, and average precision, NaN where no
            positive has weight.
        """
        if not len(self.where):
            nothing = np.full(weights.shape[1], math.nan)
            return nothing, nothing
        ordered = weights[self.order]
        positives = ordered[self.where].astype(np.float64)
        seen, seen_positive = _running_sums(ordered), _running_sums(positives)
        before, until = seen[self.start], seen[self.end]
        positive_before, positive_until = seen_positive[self.positive_start], seen_positive[self.positive_end]
        negative_before = before - positive_before
        negative_tied = until - positive_until - negative_before
        num_positive = seen_positive[-1]
        num_negative = seen[-1] - num_positive
        losses = (positives * (negative_before + negative_tied / 2)).sum(axis=0)
        precision = (positives * positive_until / np.maximum(until, 1)).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - losses / (num_positive * num_negative), precision / num_positive


def _running_sums(weights: np.ndarray) -> np.ndarray:
    """(N + 1, R) sums of the rows before each; exact in float32 while the total stays below 2**24."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]), weights.dtype)
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums
