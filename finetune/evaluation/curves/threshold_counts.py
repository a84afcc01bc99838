"""Counts by threshold: how many images of a class, and how many others, are flagged at each probability."""

from dataclasses import dataclass

import numpy as np

from finetune.evaluation.metrics import indicators
from finetune.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class ThresholdCounts:
    """Counts at the T distinct probabilities of a class, from the highest to the lowest.

    Attributes:
        thresholds: (T,) float64, falling.
        hits: (T,) int64 images of the class with at least that probability.
        alarms: (T,) int64 other images with at least that probability.
        positives: Images of the class.
        negatives: Other images.
    """

    thresholds: np.ndarray
    hits: np.ndarray
    alarms: np.ndarray
    positives: int
    negatives: int

    @property
    def num(self) -> int:
        """How many images were ranked."""
        return self.positives + self.negatives

    def counts_at(self, threshold: float) -> tuple[int, int]:
        """Return how many images of the class and how many others have at least that probability."""
        number = int(np.searchsorted(-self.thresholds, -threshold, side="right"))
        return (int(self.hits[number - 1]), int(self.alarms[number - 1])) if number else (0, 0)


def count_thresholds(scores: np.ndarray, positive: np.ndarray) -> ThresholdCounts:
    """Count along the (N,) scores; `positive` says which of the N are of the class."""
    order = np.argsort(-scores, kind="stable")
    ordered, held = scores[order].astype(np.float64), positive[order].astype(np.int64)
    ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(ordered) else np.zeros(0, np.int64)
    hits = np.cumsum(held)[ends]
    num_positive = int(held.sum())
    return ThresholdCounts(ordered[ends], hits, ends + 1 - hits, num_positive, len(ordered) - num_positive)


def count_class(predictions: Predictions, number: int) -> ThresholdCounts:
    """Rank the images by the probability of the class of that number, which stands against all others."""
    truth = predictions.targets[:, number] == 1 if predictions.multilabel else predictions.targets == number
    return count_thresholds(predictions.probabilities[:, number], truth)


def count_classes(predictions: Predictions) -> list[ThresholdCounts]:
    """Rank the images once for each class."""
    return [count_class(predictions, number) for number in range(len(predictions.labels))]


def count_pairs(predictions: Predictions) -> ThresholdCounts:
    """Rank all pairs of an image and a class together, which is what micro averages are over."""
    return count_thresholds(predictions.probabilities.ravel(), indicators(predictions).ravel() == 1)


def reported_classes(predictions: Predictions) -> tuple[int, ...]:
    """Return the numbers of the classes worth telling of: the second of two, which stands for both, else all."""
    if len(predictions.labels) == 2 and not predictions.multilabel:
        return (1,)
    return tuple(range(len(predictions.labels)))
