"""Weighted ROC AUC and average precision of one class, under many weightings of the images at once."""

import math

import numpy as np
from scipy.sparse import csr_array


class Ranking:
    """The images in order of falling score, prepared once so that each weighting costs one pass over the images."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        """Sort the (N,) scores and find where the tied group of each positive image begins and ends."""
        order = np.argsort(-scores, kind="stable")
        ordered = -scores[order]
        self.where = order[np.flatnonzero(positive[order])]
        held = -scores[self.where]
        starts, ends = (np.searchsorted(ordered, held, side=side) for side in ("left", "right"))
        borders = np.unique(np.concatenate([[0], starts, ends, [len(order)]]))
        ones = np.ones(len(order), np.float32)
        self.parts = csr_array((ones, order, borders), shape=(len(borders) - 1, len(order)))
        self.start, self.end = np.searchsorted(borders, starts), np.searchsorted(borders, ends)
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
        positives = weights[self.where].astype(np.float64)
        seen, seen_positive = _running_sums(self.parts @ weights), _running_sums(positives)
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
