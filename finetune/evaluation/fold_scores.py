"""Scores over folds: out-of-fold predictions, and how much scores vary between folds."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from finetune.errors import RunError
from finetune.evaluation.metrics import compute_metrics
from finetune.evaluation.predictions import ARRAYS, Predictions

_LEVEL = 0.95
UNBOUNDED = ("loss",)  # of the metrics, all others lie in [0, 1]


def out_of_fold(folds: Sequence[Predictions], order: Sequence[str]) -> Predictions:
    """Return one prediction for each image that some fold held out: the mean of their probabilities.

    Args:
        folds: What each fold says of its held-out images.
        order: Ids of all images, in the order wanted.

    Raises:
        RunError: There is no fold, or folds do not know the same labels.
    """
    if len({each.labels for each in folds}) != 1:
        raise RunError("The folds do not know the same labels. Train them anew.")
    whole, place = _joined(folds), {name: row for row, name in enumerate(order)}
    names, first, image = np.unique(whole.ids.astype(str), return_index=True, return_inverse=True)
    sums = np.zeros((len(names), len(whole.labels)))
    np.add.at(sums, image, whole.probabilities)
    means = sums / np.bincount(image)[:, None]
    ordered = np.argsort([place[name] for name in names.tolist()])
    return with_probabilities(whole.take(first[ordered]), means[ordered])


def _joined(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several sets of images as one."""
    full = [part for part in parts if part.num]
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in full]) for name in ARRAYS}
    return replace(full[0], **arrays, groups=pd.concat([part.groups for part in full], ignore_index=True))


def with_probabilities(predictions: Predictions, probabilities: np.ndarray) -> Predictions:
    """Return predictions of the same images with other probabilities (N, K)."""
    return replace(predictions, probabilities=np.asarray(probabilities, np.float32))


def fold_document(folds: Sequence[Predictions], learnt: Sequence[int], *, independent: bool) -> dict[str, Any]:
    """Return what metrics.json holds of the folds: each one's scores, their mean, spread and corrected interval.

    Args:
        folds: What each fold says of its held-out images.
        learnt: How many images each fold has learnt from.
        independent: Whether all folds hold out parts of one dealing; resamples that overlap otherwise have no interval.
    """
    sizes = [fold.num for fold in folds]
    found: dict[str, Any] = {"folds": len(folds), "n": sizes, "learnt": list(map(int, learnt)), "metrics": {}}
    if min(sizes) < 2:  # a single image has no score worth a mean
        return found
    scores = [compute_metrics(fold) for fold in folds]
    ratio = float(np.mean([size / number for size, number in zip(sizes, learnt, strict=True)]))
    for name in scores[0]:
        values = [each.get(name, math.nan) for each in scores]
        defined = [value for value in values if math.isfinite(value)]
        entry: dict[str, Any] = {"values": values, "mean": math.nan, "spread": math.nan}
        if defined:
            entry["mean"] = float(np.mean(defined))
            entry["spread"] = float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
        low, high = corrected_interval(defined, ratio) if independent else (math.nan, math.nan)
        if name not in UNBOUNDED and math.isfinite(low):
            low, high = max(low, 0.0), min(high, 1.0)
        found["metrics"][name] = {**entry, "low": low, "high": high}
    return found


def corrected_interval(values: Sequence[float], ratio: float) -> tuple[float, float]:
    """Return the interval of a mean over folds, whose training images overlap.

    The variance of the mean is that of the values times 1 / J + ratio, in place of 1 / J. Where all values are the same
    they say nothing about how far they spread, and the interval is NaN.

    Args:
        values: Of the folds (J).
        ratio: Held-out images by those learnt from, of a fold.

    Source: Nadeau and Bengio 2003, Inference for the Generalization Error, section 3 (corrected resampled t).
    """
    number = len(values)
    if number < 2 or min(values) == max(values):
        return math.nan, math.nan
    error = math.sqrt((1 / number + ratio) * float(np.var(values, ddof=1)))
    half = float(stats.t.ppf((1 + _LEVEL) / 2, number - 1)) * error
    mean = float(np.mean(values))
    return mean - half, mean + half
