"""Reliability: how often the network is right at each probability, which is what calibration is about."""

from dataclasses import dataclass

import numpy as np

from finetune.evaluation.metrics import BINS, judged_decisions, probability_bins
from finetune.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Reliability:
    """Decisions by their probability, in B bins of equal width and one of probability 1 exactly.

    Attributes:
        low: (B + 1,) float64 where each bin begins.
        counts: (B + 1,) int64 decisions in it.
        confidence: (B + 1,) float64 mean probability; NaN where there is none.
        rightness: (B + 1,) float64 share that is so; NaN where there is none.
    """

    low: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    rightness: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance, weighted by the counts."""
        filled = self.counts > 0
        gaps = np.abs(self.rightness - self.confidence)[filled]
        return float((gaps * self.counts[filled]).sum() / self.counts.sum())

    @property
    def overconfidence(self) -> float:
        """Mean probability minus share that is so, over all decisions; above 0 the network is too sure of itself."""
        filled = self.counts > 0
        gaps = (self.confidence - self.rightness)[filled]
        return float((gaps * self.counts[filled]).sum() / self.counts.sum())


def reliability_bins(predictions: Predictions) -> Reliability:
    """Count the most probable label of each image, or each label of each image for multi-label.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 2 (reliability diagram).
    """
    probability, right = judged_decisions(predictions)
    bins = probability_bins(probability).ravel()
    counts = np.bincount(bins, minlength=BINS + 1)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bins, probability.ravel(), BINS + 1) / counts
        rightness = np.bincount(bins, right.ravel(), BINS + 1) / counts
    return Reliability(np.linspace(0, 1, BINS + 1), counts, confidence, rightness)
