"""Bootstrap: percentile intervals of metrics over images, and the document written as metrics.json."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from finetune.evaluation.metrics import (
    BINS,
    CLASS_SCORES,
    TOP,
    compute_metrics,
    image_losses,
    indicators,
    judged_decisions,
    per_class,
    probability_bins,
)
from finetune.evaluation.predictions import Predictions
from finetune.evaluation.weighted_auc import Ranking

Interval = tuple[float, float]
LEVEL = 0.95  # of all intervals
_CHUNK = 2**18
UNKNOWN: Interval = (math.nan, math.nan)
ENDS = ("low", "high")
PROPORTIONS = ("accuracy", "accuracy_top5", "exact_match")


def bootstrap(predictions: Predictions, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Give each metric of `compute_metrics` the interval between the percentiles of its resampled values.

    Whole images are drawn with replacement. A resample in which a metric is undefined is left out of that metric, and
    an interval that misses the measured value (the calibration error of resamples is biased upwards) is widened to
    it. Where all resamples agree they say nothing about the spread: a proportion of images that is 0 or 1 gets the
    exact binomial bound, any other metric NaN. Without resamples everything is NaN.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3 (percentile interval); Clopper
    and Pearson 1934, The use of confidence or fiducial limits (exact binomial bound).
    """
    draws = None if resamples < 1 else Resamples.draw(predictions, resamples, seed)
    return set_intervals(predictions, draws)


def class_rows(predictions: Predictions, resamples: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """Give `per_class` with the interval of each score beside it, as plain JSON: recall, recall_low, recall_high.

    Intervals are those of `bootstrap`. Recall and precision are proportions of the images of the class and of those
    that were taken for it: where they are 0 or 1, they get the exact bound of that number.
    """
    return _class_rows(predictions, None if resamples < 1 else Resamples.draw(predictions, resamples, seed))


@dataclass(frozen=True, eq=False)
class Resamples:
    """The metrics of R resamples of the images, NaN where they are undefined.

    Attributes:
        scores: (R,) float64 by name, for each metric of `compute_metrics`.
        classes: (K, R) float64 by name, for each of CLASS_SCORES.
    """

    scores: dict[str, np.ndarray]
    classes: dict[str, np.ndarray]

    @classmethod
    def draw(cls, predictions: Predictions, resamples: int, seed: int) -> "Resamples":
        """Draw whole images with replacement, as often as there are images, and compute all metrics each time."""
        counter = _Counter(predictions)
        parts = [counter.metrics(weights) for weights in draw_weights(predictions.num, resamples, seed)]
        scores, classes = (
            {name: np.concatenate([part[name] for part in kind], axis=-1) for name in kind[0]}
            for kind in zip(*parts, strict=True)
        )
        return cls(scores, classes)


def draw_weights(num: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield (num, R) float32 counts of how often each image is drawn, in chunks that fit a processor's cache."""
    generator = np.random.default_rng(seed)
    step = max(1, min(resamples, _CHUNK // num))
    for start in range(0, resamples, step):
        width = min(step, resamples - start)
        drawn = generator.integers(0, num, size=(width, num))
        cells = drawn * width + np.arange(width)[:, None]
        yield np.bincount(cells.ravel(), minlength=num * width).reshape(num, width).astype(np.float32)


def metrics_document(splits: Mapping[str, Predictions], *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Build the content of metrics.json: value, low and high of each metric of each split, per-class scores and n.

    A class's scores have their intervals beside them, such as recall, recall_low and recall_high.

    What is undefined is None, so that the document is plain JSON.
    """
    document: dict[str, Any] = {}
    classes: dict[str, Any] = {}
    for split, predictions in splits.items():
        draws = None if resamples < 1 else Resamples.draw(predictions, resamples, seed)
        intervals = set_intervals(predictions, draws)
        document[split] = {
            name: {"value": _plain(value), "low": _plain(intervals[name][0]), "high": _plain(intervals[name][1])}
            for name, value in compute_metrics(predictions).items()
        }
        classes[split] = _class_rows(predictions, draws)
    document["per_class"] = classes
    document["n"] = {split: predictions.num for split, predictions in splits.items()}
    return document


def set_intervals(predictions: Predictions, draws: Resamples | None) -> dict[str, Interval]:
    """Give each metric of `compute_metrics` its interval in the resamples; everything is NaN without them."""
    values = compute_metrics(predictions)
    if draws is None:
        return dict.fromkeys(values, UNKNOWN)
    return {
        name: _interval(value, draws.scores[name], predictions.num if name in PROPORTIONS else 0)
        for name, value in values.items()
    }


def _class_intervals(predictions: Predictions, draws: Resamples | None) -> dict[str, list[Interval]]:
    rows = per_class(predictions)
    if draws is None:
        return {name: [UNKNOWN] * len(rows) for name in CLASS_SCORES}
    called = _called(predictions).sum(axis=0)
    numbers = {"precision": called, "recall": np.array([row["support"] for row in rows])}
    return {
        name: [
            _interval(row[name], draws.classes[name][k], int(numbers[name][k]) if name in numbers else 0)
            for k, row in enumerate(rows)
        ]
        for name in CLASS_SCORES
    }


def _class_rows(predictions: Predictions, draws: Resamples | None) -> list[dict[str, Any]]:
    intervals = _class_intervals(predictions, draws)
    rows = []
    for k, row in enumerate(per_class(predictions)):
        bounds = {f"{name}_{end}": intervals[name][k][place] for name in CLASS_SCORES for place, end in enumerate(ENDS)}
        rows.append({key: _plain(cell) for key, cell in {**row, **bounds}.items()})
    return rows


def weighted_sums(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Multiply (K, N) values by (N, R) weights without BLAS, whose threads stall each other on a busy machine."""
    return np.asarray(np.einsum("kn,nr->kr", values, weights))


class _Counter:
    """Computes the metrics of one set of predictions under many weightings of its images at once."""

    def __init__(self, predictions: Predictions) -> None:
        """Turn the predictions into indicator columns, whose weighted sums are all that the metrics need."""
        self.predictions = predictions
        truth = indicators(predictions).astype(np.float32)
        called = _called(predictions).astype(np.float32)
        # few images are of a class: sparse products, without the threads of BLAS, which stall each other
        self.true_positives, self.truth, self.called = (csr_array(part.T) for part in (truth * called, truth, called))
        self.rankings = [Ranking(predictions.probabilities[:, k], truth[:, k] == 1) for k in range(truth.shape[1])]
        self.means = _image_values(predictions, truth, called)
        self.gaps = csr_array(_bin_gaps(predictions))

    def metrics(self, weights: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Compute every metric for the (N, R) weights: of the set, name to (R,), and of the classes, name to (K, R)."""
        total = weights.sum(axis=0, dtype=np.float64)
        scores = {name: weighted_sums(values[None], weights)[0] / total for name, values in self.means.items()}
        counts = tuple(part @ weights for part in (self.true_positives, self.truth, self.called))
        classes = _precision_recall_f1(*counts)
        scores |= {f"{name}_macro": _mean_of_defined(values) for name, values in classes.items()}
        if self.predictions.multilabel:
            micro = _precision_recall_f1(*(part.sum(axis=0, keepdims=True) for part in counts))
            scores |= {f"{name}_micro": values[0] for name, values in micro.items()}
        areas = [ranking.areas(weights) for ranking in self.rankings]
        classes["roc_auc"], classes["average_precision"] = (np.stack(column) for column in zip(*areas, strict=True))
        aucs = classes["roc_auc"]
        binary = len(aucs) == 2 and not self.predictions.multilabel
        scores["roc_auc"] = aucs[1] if binary else _mean_of_defined(aucs)
        scores["average_precision"] = _mean_of_defined(classes["average_precision"])
        scores["calibration_error"] = np.abs(self.gaps @ weights).sum(axis=0) / total
        return scores, classes


def _called(predictions: Predictions) -> np.ndarray:
    """The decisions as (N, K) int64 of 0 and 1, for both tasks."""
    if predictions.multilabel:
        return predictions.predicted.astype(np.int64)
    return np.asarray(np.eye(len(predictions.labels), dtype=np.int64)[predictions.predicted])


def _image_values(predictions: Predictions, truth: np.ndarray, called: np.ndarray) -> dict[str, np.ndarray]:
    """(N,) values of the metrics that are plain means over images."""
    right = truth == called
    values = {"accuracy": right.mean(axis=1) if predictions.multilabel else right.all(axis=1)}
    if predictions.multilabel:
        values["exact_match"] = right.all(axis=1)
    elif len(predictions.labels) > TOP:
        best = np.argsort(-predictions.probabilities, axis=1, kind="stable")[:, :TOP]
        values["accuracy_top5"] = (best == predictions.targets[:, None]).any(axis=1)
    values["loss"] = image_losses(predictions)
    return {name: value.astype(np.float64) for name, value in values.items()}


def _bin_gaps(predictions: Predictions) -> np.ndarray:
    """(bins, N) rightness minus confidence of each image in the bin of its confidence, as torchmetrics bins them."""
    confidence, right = judged_decisions(predictions)
    bins = probability_bins(confidence)
    gaps = np.zeros((BINS + 1, predictions.num))
    images = np.broadcast_to(np.arange(predictions.num)[:, None], bins.shape)
    np.add.at(gaps, (bins, images), (right - confidence) / confidence.shape[1])
    return gaps


def _precision_recall_f1(hits: np.ndarray, support: np.ndarray, called: np.ndarray) -> dict[str, np.ndarray]:
    """(K, R) scores from (K, R) counts; NaN where a class has no support, precision 0 where it was never called."""
    measured = np.where(support > 0, support.astype(np.float64), math.nan)
    precision = np.where(support > 0, hits / np.maximum(called, 1), math.nan)
    return {"precision": precision, "recall": hits / measured, "f1": 2 * hits / (measured + called)}


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """(R,) mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    sums = np.where(defined, values, 0).sum(axis=0)
    return np.where(count > 0, sums / np.maximum(count, 1), math.nan)


def _interval(value: float, draws: np.ndarray, num: int) -> Interval:
    """The interval of a metric; `num` is of how many it is a proportion, 0 if it is none."""
    draws = draws[~np.isnan(draws)]
    if math.isnan(value) or not len(draws):
        return UNKNOWN
    tail = (1 - LEVEL) / 2
    if num and value in (0, 1):
        return (tail ** (1 / num), 1.0) if value == 1 else (0.0, 1 - tail ** (1 / num))  # of Clopper and Pearson
    if np.ptp(draws) <= 1e-9:
        return UNKNOWN
    low, high = np.quantile(draws, [tail, 1 - tail])
    return min(float(low), value), max(float(high), value)


def binomial_interval(hits: np.ndarray, nums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact bounds of proportions `hits` of `nums`, arrays of one shape; NaN of none.

    Source: Clopper and Pearson 1934, The use of confidence or fiducial limits.
    """
    from scipy.stats import beta  # half a second, which training need not wait for

    tail = (1 - LEVEL) / 2
    low = np.where(hits > 0, beta.ppf(tail, np.maximum(hits, 1), nums - hits + 1), 0.0)
    high = np.where(hits < nums, beta.ppf(1 - tail, hits + 1, np.maximum(nums - hits, 1)), 1.0)
    return np.where(nums > 0, low, math.nan), np.where(nums > 0, high, math.nan)


def _plain(cell: Any) -> Any:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
