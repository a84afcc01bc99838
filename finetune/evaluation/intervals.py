"""How sure the metrics are: percentile bootstrap intervals over images, and the document written as metrics.json.

It decides how images are resampled and what is done where resampling is blind; the metrics themselves are `scores`'.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from finetune.evaluation.predictions import Predictions
from finetune.evaluation.ranking import Ranking
from finetune.evaluation.scores import BINS, TOP, image_losses, indicators, per_class, score

Interval = tuple[float, float]
CHUNK = 2**18
UNKNOWN: Interval = (math.nan, math.nan)
PROPORTIONS = ("accuracy", "accuracy_top5", "exact_match")


def bootstrap(
    predictions: Predictions, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Give each metric of `score` the interval between the percentiles of its resampled values.

    Whole images are drawn with replacement. A resample in which a metric is undefined is left out of that metric, and
    an interval that misses the measured value (the calibration error of resamples is biased upwards) is widened to
    it. Where all resamples agree they say nothing about the spread: a proportion of images that is 0 or 1 then gets
    the exact binomial bound, any other metric NaN. Without resamples everything is NaN.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3 (percentile interval); Clopper
    and Pearson 1934, The use of confidence or fiducial limits (exact binomial bound).
    """
    values = score(predictions)
    if resamples < 1:
        return dict.fromkeys(values, UNKNOWN)
    draws = resampled_scores(predictions, resamples, seed)
    return {name: _interval(name, value, draws[name], predictions.num, level) for name, value in values.items()}


def resampled_scores(predictions: Predictions, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Compute each metric of `score` on each of the resamples: name to (resamples,) float64, NaN where undefined."""
    counter = _Counter(predictions)
    parts = [counter.scores(weights) for weights in draw_weights(predictions.num, resamples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def draw_weights(num: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield (num, R) float32 counts of how often each image is drawn, in chunks that fit a processor's cache."""
    generator = np.random.default_rng(seed)
    step = max(1, min(resamples, CHUNK // num))
    for start in range(0, resamples, step):
        width = min(step, resamples - start)
        drawn = generator.integers(0, num, size=(width, num))
        cells = drawn * width + np.arange(width)[:, None]
        yield np.bincount(cells.ravel(), minlength=num * width).reshape(num, width).astype(np.float32)


def metrics_document(
    splits: Mapping[str, Predictions], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Any]:
    """Build the content of metrics.json: value, low and high of each metric of each split, per-class scores and n.

    What is undefined is None, so that the document is plain JSON.
    """
    document: dict[str, Any] = {}
    for split, predictions in splits.items():
        intervals = bootstrap(predictions, resamples, seed, level)
        document[split] = {
            name: {"value": _plain(value), "low": _plain(intervals[name][0]), "high": _plain(intervals[name][1])}
            for name, value in score(predictions).items()
        }
    document["per_class"] = {
        split: [{key: _plain(cell) for key, cell in row.items()} for row in per_class(predictions)]
        for split, predictions in splits.items()
    }
    document["n"] = {split: predictions.num for split, predictions in splits.items()}
    return document


def weighted_sums(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Multiply (K, N) values by (N, R) weights without BLAS, whose threads stall each other on a busy machine."""
    return np.asarray(np.einsum("kn,nr->kr", values, weights))


class _Counter:
    """Computes the metrics of one set of predictions under many weightings of its images at once."""

    def __init__(self, predictions: Predictions) -> None:
        """Turn the predictions into indicator columns, whose weighted sums are all that the metrics need."""
        self.predictions = predictions
        truth = indicators(predictions).astype(np.float32)
        decided = predictions.predicted
        decisions = decided if predictions.multilabel else np.eye(len(predictions.labels))[decided]
        decisions = decisions.astype(np.float32)
        self.true_positives, self.truth, self.decisions = (truth * decisions).T, truth.T, decisions.T
        self.rankings = [Ranking(predictions.probabilities[:, k], truth[:, k] == 1) for k in range(truth.shape[1])]
        self.means = _image_values(predictions, truth, decisions)
        self.gaps = _bin_gaps(predictions)

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Compute every metric for the (N, R) weights: name to (R,)."""
        total = weights.sum(axis=0, dtype=np.float64)
        scores = {name: weighted_sums(values[None], weights)[0] / total for name, values in self.means.items()}
        hits, support, called = (
            weighted_sums(part, weights) for part in (self.true_positives, self.truth, self.decisions)
        )
        scores |= _averages(*_precision_recall_f1(hits, support, called), "macro")
        if self.predictions.multilabel:
            sums = (part.sum(axis=0, keepdims=True) for part in (hits, support, called))
            scores |= _averages(*_precision_recall_f1(*sums), "micro")
        areas = [ranking.areas(weights) for ranking in self.rankings]
        aucs, precisions = (np.stack(column) for column in zip(*areas, strict=True))
        binary = len(aucs) == 2 and not self.predictions.multilabel
        scores["roc_auc"] = aucs[1] if binary else _mean_of_defined(aucs)
        scores["average_precision"] = _mean_of_defined(precisions)
        scores["calibration_error"] = np.abs(weighted_sums(self.gaps, weights)).sum(axis=0) / total
        return scores


def _image_values(predictions: Predictions, truth: np.ndarray, decisions: np.ndarray) -> dict[str, np.ndarray]:
    """(N,) values of the metrics that are plain means over images."""
    right = truth == decisions
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
    probabilities = predictions.probabilities.astype(np.float64)
    if predictions.multilabel:
        confidence, right = probabilities, predictions.targets
    else:
        confidence = probabilities.max(axis=1, keepdims=True)
        right = (predictions.predicted == predictions.targets)[:, None]
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1), confidence, side="right") - 1
    gaps = np.zeros((BINS + 1, predictions.num))
    images = np.broadcast_to(np.arange(predictions.num)[:, None], bins.shape)
    np.add.at(gaps, (bins, images), (right - confidence) / confidence.shape[1])
    return gaps


def _precision_recall_f1(
    hits: np.ndarray, support: np.ndarray, called: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K, R) scores from (K, R) counts; NaN where a class has no support, precision 0 where it was never called."""
    measured = np.where(support > 0, support.astype(np.float64), math.nan)
    precision = np.where(support > 0, hits / np.maximum(called, 1), math.nan)
    return precision, hits / measured, 2 * hits / (measured + called)


def _averages(precision: np.ndarray, recall: np.ndarray, f1: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    columns = {"precision": precision, "recall": recall, "f1": f1}
    return {f"{name}_{kind}": _mean_of_defined(values) for name, values in columns.items()}


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """(R,) mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    sums = np.where(defined, values, 0).sum(axis=0)
    return np.where(count > 0, sums / np.maximum(count, 1), math.nan)


def _interval(name: str, value: float, draws: np.ndarray, num: int, level: float) -> Interval:
    draws = draws[~np.isnan(draws)]
    if math.isnan(value) or not len(draws):
        return UNKNOWN
    tail = (1 - level) / 2
    if np.ptp(draws) <= 1e-9:
        return _exact_bound(value, num, tail) if name in PROPORTIONS else UNKNOWN
    low, high = np.quantile(draws, [tail, 1 - tail])
    return min(float(low), value), max(float(high), value)


def _exact_bound(value: float, num: int, tail: float) -> Interval:
    """The Clopper-Pearson interval of a proportion of `num` images that is 0 or 1."""
    if value == 1:
        return tail ** (1 / num), 1.0
    return (0.0, 1 - tail ** (1 / num)) if value == 0 else UNKNOWN


def _plain(cell: Any) -> Any:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
