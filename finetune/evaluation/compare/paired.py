"""Paired comparison: two sets of predictions of the very same images, and what their difference is worth."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finetune.errors import DataError
from finetune.evaluation.bootstrap import LEVEL, PROPORTIONS, Resamples
from finetune.evaluation.metrics import CLASS_SCORES, compute_metrics, per_class
from finetune.evaluation.predictions import Predictions

_SHOWN = 3
LOWER_IS_BETTER = ("loss", "calibration_error")


class OtherImagesError(DataError):
    """Predictions are not of the same images."""


@dataclass(frozen=True)
class Difference:
    """A metric of two runs, the second minus the first.

    Attributes:
        first: Of the first.
        second: Of the second.
        low: Lower end of the interval of the difference; NaN where it is not known.
        high: Upper end.
    """

    first: float
    second: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The difference."""
        return self.second - self.first

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def plain(self) -> dict[str, float | None]:
        """Return it as plain JSON."""
        ends = {"low": self.low, "high": self.high}
        cells = {"first": self.first, "second": self.second, "difference": self.value, **ends}
        return {name: None if math.isnan(cell) else cell for name, cell in cells.items()}


@dataclass(frozen=True)
class Changes:
    """What changes from one run to another.

    Attributes:
        metrics: By name.
        classes: By label, then by name: those of CLASS_SCORES.
    """

    metrics: dict[str, Difference]
    classes: dict[str, dict[str, Difference]]


def _check_labels(first: Predictions, second: Predictions, names: tuple[str, str]) -> None:
    """Check that two runs know the same labels.

    Raises:
        DataError: They do not.
    """
    if first.task != second.task or set(first.labels) != set(second.labels):
        only = sorted(set(first.labels) ^ set(second.labels))
        what = f"{len(only)} labels are known to one of them alone (first: {only[0]})" if only else "their tasks differ"
        raise DataError(f"{names[0]} and {names[1]} cannot be compared: {what}. Compare runs of the same labels.")


def align_predictions(
    first: Predictions, second: Predictions, names: tuple[str, str], *, common: bool
) -> tuple[Predictions, ...]:
    """Return both over the same images in the same order, and over the labels in the order of the first.

    Args:
        first: Of one run.
        second: Of another.
        names: Of the runs, for errors.
        common: Whether images that only one of them has are left out, and not refused.

    Raises:
        OtherImagesError: Their images differ; says how many, and which are the first.
        DataError: Their labels differ, or images have other labels in one.
    """
    _check_labels(first, second, names)
    place = {name: row for row, name in enumerate(second.ids.tolist())}
    mine = [row for row, name in enumerate(first.ids.tolist()) if name in place]
    gone = [name for name in first.ids.tolist() if name not in place]
    added = sorted(set(place).difference(first.ids.tolist()))
    if (gone or added) and not (common and mine):
        raise OtherImagesError(describe_difference(names, gone, added, len(mine)))
    theirs = [place[name] for name in first.ids[mine].tolist()]
    pair = first.take(mine), reorder_labels(second.take(theirs), first.labels)
    changed = np.flatnonzero((pair[0].targets != pair[1].targets).reshape(len(mine), -1).any(axis=1))
    if len(changed):
        row = int(changed[0])
        raise DataError(
            f"{len(changed):,} images have another label in {names[1]} than in {names[0]} (first: {pair[0].ids[row]}, "
            f"{pair[0].label_names[row]} and {pair[1].label_names[row]}). Evaluate both on the same labels: finetune "
            "evaluate run=… data.root=…"
        )
    return pair


def describe_difference(names: tuple[str, str], gone: list[str], added: list[str], both: int) -> str:
    """Return what is to be said of runs with different images."""
    parts = [f"{len(only):,} are in {name} alone (first: {', '.join(map(str, only[:_SHOWN]))})"
             for name, only in zip(names, (gone, added), strict=True) if only]  # fmt: skip
    hint = " or compare the images that both have: common=true" if both else ""
    return (
        f"{names[0]} and {names[1]} were not tested on the same images: {'; '.join(parts)}; {both:,} are in both. "
        f"Evaluate both on the same ones (finetune evaluate run=… data.root=…, then runs=[…/evaluations/…]){hint}."
    )


def reorder_labels(predictions: Predictions, labels: tuple[str, ...]) -> Predictions:
    """Return predictions over the same labels in another order."""
    order = [predictions.labels.index(label) for label in labels]
    targets = predictions.targets[:, order] if predictions.multilabel else np.argsort(order)[predictions.targets]
    return replace(predictions, targets=targets, probabilities=predictions.probabilities[:, order], labels=labels)


def compare_pair(first: Predictions, second: Predictions, *, resamples: int = 1000, seed: int = 0) -> Changes:
    """Return by how much each metric differs, with percentile intervals over paired resamples.

    In each resample the same images are drawn for both, so that what makes an image hard for both cancels.

    Args:
        first: Predictions of N images.
        second: Of the same images in the same order.
        resamples: How many.
        seed: Of the draws.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 8 (paired data) and section 13.3.
    """
    values = compute_metrics(first), compute_metrics(second)
    rows = per_class(first), per_class(second)
    one, two = (Resamples.draw(each, resamples, seed) if resamples else None for each in (first, second))
    metrics = {
        name: paired_difference(values[0][name], values[1][name], one and one.scores[name], two and two.scores[name])
        for name in values[0]
    }
    classes = {
        label: {
            name: paired_difference(
                rows[0][k][name], rows[1][k][name], one and one.classes[name][k], two and two.classes[name][k]
            )
            for name in CLASS_SCORES
        }
        for k, label in enumerate(first.labels)
    }  # fmt: skip
    return Changes(widen_intervals(metrics, first, second), classes)


def widen_intervals(metrics: dict[str, Difference], first: Predictions, second: Predictions) -> dict[str, Difference]:
    """Return the differences, with what resamples cannot see: that images not drawn here may differ.

    Where two models that are not the same decide alike on all N images, each resample says exactly 0. The share of
    images on which they differ then lies below its exact bound, and the difference of a proportion within it.

    Source: Clopper and Pearson 1934, The use of confidence or fiducial limits (exact binomial bound).
    """
    if np.array_equal(first.probabilities, second.probabilities):
        return metrics
    bound = 1 - ((1 - LEVEL) / 2) ** (1 / first.num)
    blind = {
        name: replace(each, low=each.value - bound, high=each.value + bound)
        for name, each in metrics.items()
        if name in PROPORTIONS and each.high - each.low <= 1e-9
    }
    return {**metrics, **blind}


def paired_difference(first: float, second: float, drawn_first: Any, drawn_second: Any) -> Difference:
    """Return a difference with its interval in the resamples in which both are defined."""
    if drawn_first is None or math.isnan(first) or math.isnan(second):
        return Difference(first, second, math.nan, math.nan)
    draws = np.asarray(drawn_second) - np.asarray(drawn_first)
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return Difference(first, second, math.nan, math.nan)
    tail = (1 - LEVEL) / 2
    low, high = (float(end) for end in np.quantile(draws, [tail, 1 - tail]))
    value = second - first
    return Difference(first, second, min(low, value), max(high, value))
