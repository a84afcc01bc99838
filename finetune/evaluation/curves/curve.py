"""ROC and precision-recall curves of one ranking, and how a line is thinned without being seen to move."""

import heapq
import math
from dataclasses import dataclass

import numpy as np

from finetune.evaluation.curves.threshold_counts import ThresholdCounts

Line = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve of P points with rising x, and the area below it.

    Attributes:
        x: (P,) float64: false positive rate, or recall.
        y: (P,) float64: true positive rate, or precision.
        area: ROC AUC, or average precision.
        thresholds: (P,) float64 at which a point is reached; empty for an average. Nothing is flagged at infinity.
    """

    x: np.ndarray
    y: np.ndarray
    area: float
    thresholds: np.ndarray


def roc_curve(ranked: ThresholdCounts) -> Curve | None:
    """Return the rate of hits over the rate of false alarms, without points on a straight line; None without a side."""
    if not ranked.positives or not ranked.negatives:
        return None
    turns = (np.diff(ranked.hits, 2) != 0) | (np.diff(ranked.alarms, 2) != 0)
    kept = np.ones(len(ranked.hits), bool)
    kept[1:-1] = turns
    x = np.append(0, ranked.alarms[kept] / ranked.negatives)
    y = np.append(0, ranked.hits[kept] / ranked.positives)
    return Curve(x, y, float(np.trapezoid(y, x)), np.append(math.inf, ranked.thresholds[kept]))


def precision_recall_curve(ranked: ThresholdCounts) -> Curve | None:
    """Return precision over recall, one point for each threshold after (0, 1); None without an image of the class."""
    if not ranked.positives:
        return None
    recall = np.append(0, ranked.hits) / ranked.positives
    precision = np.append(1, ranked.hits / (ranked.hits + ranked.alarms))
    area = float((np.diff(recall) * precision[1:]).sum())
    return Curve(recall, precision, area, np.append(math.inf, ranked.thresholds))


def precision_envelope(curve: Curve) -> Line:
    """Return the recalls at which a precision-recall curve rises, and the precision that holds up to each of them."""
    rises = np.flatnonzero(np.diff(curve.x) > 0) + 1
    return curve.x[rises], curve.y[rises]


def step_curve(curve: Curve) -> Line:
    """Return a precision-recall curve as the line of steps whose area is the average precision."""
    recall, precision = precision_envelope(curve)
    return np.stack([np.append(0, recall[:-1]), recall], axis=1).ravel(), np.repeat(precision, 2)


def simplify_curve(line: Line, limit: int = 200) -> Line:
    """Keep at most `limit` points of a line: always the one next that is farthest from what the others draw.

    Source: Ramer 1972, An iterative procedure for the polygonal approximation of plane curves; stopped by number.
    """
    x, y = line
    if len(x) <= limit:
        return line
    kept = [0, len(x) - 1]
    waiting = [_farthest(x, y, 0, len(x) - 1)]
    while waiting and len(kept) < limit:
        distance, start, middle, end = heapq.heappop(waiting)
        if distance == 0:
            break
        kept.append(middle)
        for part in ((start, middle), (middle, end)):
            if part[1] - part[0] > 1:
                heapq.heappush(waiting, _farthest(x, y, *part))
    chosen = np.sort(kept)
    return x[chosen], y[chosen]


def _farthest(x: np.ndarray, y: np.ndarray, start: int, end: int) -> tuple[float, int, int, int]:
    """Return the negative distance of the point between two that is farthest from their chord, and start, it, end."""
    dx, dy = x[end] - x[start], y[end] - y[start]
    inner_x, inner_y = x[start + 1 : end] - x[start], y[start + 1 : end] - y[start]
    length = math.hypot(dx, dy)
    away = np.abs(dx * inner_y - dy * inner_x) / length if length else np.hypot(inner_x, inner_y)
    middle = int(away.argmax())
    return -float(away[middle]), start, start + 1 + middle, end
