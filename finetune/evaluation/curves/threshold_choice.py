"""Decision thresholds: precision, recall, false alarms and how many images are flagged above each."""

import math
from dataclasses import dataclass

import numpy as np

from finetune.evaluation.curves.threshold_counts import ThresholdCounts

SHORTEST = 8  # digits after the point, as many as a float32 below 1 has


@dataclass(frozen=True)
class ThresholdDecision:
    """What one threshold does to a set of images.

    Attributes:
        threshold: Flagged is who has at least this probability; nobody at infinity.
        hits: Flagged images of the class.
        alarms: Flagged images of other classes.
        misses: Images of the class that are not flagged.
        rest: Other images that are not flagged.
    """

    threshold: float
    hits: int
    alarms: int
    misses: int
    rest: int

    @property
    def flagged(self) -> int:
        """How many images are flagged."""
        return self.hits + self.alarms

    @property
    def share(self) -> float:
        """Flagged images among all."""
        return _ratio(self.flagged, self.flagged + self.misses + self.rest)

    @property
    def precision(self) -> float:
        """Images of the class among the flagged; NaN where nothing is flagged."""
        return _ratio(self.hits, self.flagged)

    @property
    def recall(self) -> float:
        """Flagged images among those of the class; NaN without one."""
        return _ratio(self.hits, self.hits + self.misses)

    @property
    def specificity(self) -> float:
        """Images that are not flagged among those of other classes; NaN without one."""
        return _ratio(self.rest, self.rest + self.alarms)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; NaN without an image of the class."""
        return _ratio(2 * self.hits, self.hits + self.misses + self.flagged) if self.hits + self.misses else math.nan


def decide_at_threshold(ranked: ThresholdCounts, threshold: float) -> ThresholdDecision:
    """Return what a threshold does to the ranked images."""
    hits, alarms = ranked.counts_at(threshold)
    return ThresholdDecision(threshold, hits, alarms, ranked.positives - hits, ranked.negatives - alarms)


def decide_at_rank(ranked: ThresholdCounts, place: int) -> ThresholdDecision:
    """Return what flagging down to the `place`-th distinct probability does; nothing is flagged at -1."""
    if place < 0:
        return decide_at_threshold(ranked, math.inf)
    lower = ranked.thresholds[place + 1] if place + 1 < len(ranked.thresholds) else -math.inf
    return decide_at_threshold(ranked, shortest_between(float(lower), float(ranked.thresholds[place])))


def pareto_thresholds(ranked: ThresholdCounts, limit: int = 20) -> list[int]:
    """Return places of thresholds that no other beats in both hits and alarms, evenly chosen, the highest first."""
    more_hits = np.diff(ranked.hits, prepend=0) > 0
    next_alarms = np.diff(ranked.alarms, append=ranked.negatives + 1) > 0
    places = np.flatnonzero(more_hits & next_alarms)
    if len(places) > limit:
        places = places[np.linspace(0, len(places) - 1, limit).round().astype(int)]
    return [int(place) for place in places]


def threshold_table(ranked: ThresholdCounts, also: tuple[float, ...] = (), limit: int = 20) -> list[ThresholdDecision]:
    """Return the useful thresholds and the given ones, the highest first."""
    rows = [decide_at_rank(ranked, place) for place in pareto_thresholds(ranked, limit)]
    known = {row.threshold for row in rows}
    rows += [decide_at_threshold(ranked, threshold) for threshold in dict.fromkeys(also) if threshold not in known]
    return sorted(rows, key=lambda row: -row.threshold)


def shortest_between(low: float, high: float) -> float:
    """Return the number with the fewest digits that is above `low` and at most `high`, which can be typed."""
    for digits in range(1, SHORTEST + 1):
        number = math.floor(high * 10**digits) / 10**digits
        if low < number <= high:
            return float(number)
    return high


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
