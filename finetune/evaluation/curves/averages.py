"""ROC and precision-recall curves of each class and of all of them together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune.evaluation.curves.curve import Curve, precision_envelope, precision_recall_curve, roc_curve
from finetune.evaluation.curves.threshold_counts import ThresholdCounts

_NOTHING = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Curves:
    """The curves of one kind.

    Attributes:
        classes: One for each class; None where the images cannot say.
        micro: Over all pairs of an image and a class; None where they cannot say.
        macro: The mean of the classes' curves; its area is the mean of their areas. None where there is none.
    """

    classes: tuple[Curve | None, ...]
    micro: Curve | None
    macro: Curve | None

    @property
    def areas(self) -> np.ndarray:
        """(K,) float64 area of each class, NaN where there is none."""
        return np.array([math.nan if curve is None else curve.area for curve in self.classes])


def roc_curves(classes: Sequence[ThresholdCounts], decisions: ThresholdCounts) -> Curves:
    """Return the ROC curves of the classes, of all decisions (micro) and on average (macro)."""
    curves = tuple(roc_curve(ranked) for ranked in classes)
    return Curves(curves, roc_curve(decisions), average_roc([curve for curve in curves if curve is not None]))


def precision_recall_curves(classes: Sequence[ThresholdCounts], decisions: ThresholdCounts) -> Curves:
    """Return the precision-recall curves of the classes, of all decisions (micro) and on average (macro)."""
    curves = tuple(precision_recall_curve(ranked) for ranked in classes)
    average = average_precision_recall([curve for curve in curves if curve is not None])
    return Curves(curves, precision_recall_curve(decisions), average)


def average_roc(curves: Sequence[Curve]) -> Curve | None:
    """Return the mean true positive rate over the false positive rate; where curves jump, before and after the jump."""
    if not curves:
        return None
    grid = np.unique(np.concatenate([curve.x for curve in curves]))
    before, after = np.zeros(len(grid)), np.zeros(len(grid))
    for curve in curves:
        between = np.interp(grid, curve.x, curve.y)
        for sums, side, step in ((before, "left", 0), (after, "right", -1)):
            near = np.clip(np.searchsorted(curve.x, grid, side=side) + step, 0, len(curve.x) - 1)  # type: ignore[call-overload]
            sums += np.where(curve.x[near] == grid, curve.y[near], between)
    x, y = np.repeat(grid, 2), np.stack([before, after], axis=1).ravel() / len(curves)
    return Curve(x, y, float(np.mean([curve.area for curve in curves])), _NOTHING)


def average_precision_recall(curves: Sequence[Curve]) -> Curve | None:
    """Return the mean over the classes of the precision that holds up to each recall."""
    if not curves:
        return None
    steps = [precision_envelope(curve) for curve in curves]
    grid = np.unique(np.concatenate([recall for recall, _ in steps]))
    total = np.zeros(len(grid))
    for recall, precision in steps:
        total += precision[np.searchsorted(recall, grid, side="left")]
    x, y = np.append(0, grid), np.append(1, total / len(curves))
    return Curve(x, y, float(np.mean([curve.area for curve in curves])), _NOTHING)
