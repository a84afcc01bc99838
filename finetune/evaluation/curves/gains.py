"""Cumulative gains and lift: how many images of a class are found by looking at the most probable share of all."""

from dataclasses import dataclass

import numpy as np

from finetune.evaluation.curves.threshold_counts import ThresholdCounts


@dataclass(frozen=True, eq=False)
class Gains:
    """What is found along a ranking, as P points joined by straight lines.

    Attributes:
        share: (P,) float64 of all images looked at, rising from 0 to 1.
        found: (P,) float64 of the images of the class that are among them, rising from 0 to 1.
        prevalence: Share of the class in all images.
    """

    share: np.ndarray
    found: np.ndarray
    prevalence: float

    def found_at(self, share: np.ndarray) -> np.ndarray:
        """Return the share of the class that is found among the given shares of all images."""
        return np.asarray(np.interp(share, self.share, self.found))

    def lift_at(self, share: np.ndarray) -> np.ndarray:
        """Return how many times more of the class is found than by chance, for shares above 0."""
        return np.asarray(self.found_at(share) / share)

    def best_lift_at(self, share: np.ndarray) -> np.ndarray:
        """Return the lift of a ranking that puts all images of the class first."""
        return np.minimum(1 / self.prevalence, 1 / share)


def cumulative_gains(ranked: ThresholdCounts) -> Gains | None:
    """Return the cumulative gains of a ranking; None without an image of the class."""
    if not ranked.positives:
        return None
    share = np.append(0, ranked.hits + ranked.alarms) / ranked.num
    return Gains(share, np.append(0, ranked.hits) / ranked.positives, ranked.positives / ranked.num)
