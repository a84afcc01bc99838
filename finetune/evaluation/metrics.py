"""The metrics of a set of predictions, for the whole set and per class, computed with torchmetrics.

It decides which metrics there are and what an absent class means; how sure they are is left to `intervals`.

A class is measured when the set has an image of it. Its precision is then 0 if it was never predicted, as in
torchmetrics and scikit-learn. A class without an image has no scores at all (NaN here, null in files), and the macro
averages run over the measured classes: they are scikit-learn's with `labels=` the classes present in the targets, and
its default where every class is present.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
    multilabel_accuracy,
    multilabel_exact_match,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
)

from finetune.errors import DataError
from finetune.evaluation.predictions import THRESHOLD, Predictions

BINS = 15
TOP = 5
# by task, the score that counts images which are wholly right
WHOLE = {"multiclass": "accuracy", "multilabel": "exact_match"}
CLASS_SCORES = ("precision", "recall", "f1", "roc_auc", "average_precision")
_Row = dict[str, Any]
_MULTICLASS = {"precision": multiclass_precision, "recall": multiclass_recall, "f1": multiclass_f1_score}
_MULTILABEL = {"precision": multilabel_precision, "recall": multilabel_recall, "f1": multilabel_f1_score}


def compute_metrics(predictions: Predictions) -> dict[str, float]:
    """Compute every metric of the set; a metric that the set cannot measure is NaN.

    Multi-class: accuracy, accuracy_top5 (more than 5 labels), precision, recall and F1 as macro averages, roc_auc
    (two labels: the second is the positive one; else macro one against the rest), average_precision (macro),
    calibration_error (expected, of the most probable label, 15 bins), loss (mean negative log-likelihood).

    Multi-label: accuracy (of single label decisions at 0.5), exact_match, precision, recall and F1 as macro and micro
    averages, roc_auc and average_precision (macro), calibration_error (of all label probabilities, 15 bins), loss
    (mean binary cross-entropy).

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 2 (expected calibration error).

    Raises:
        DataError: There is no image.
    """
    if not predictions.num:
        raise DataError("There are no images to score. Check the split and the folder: evaluation needs at least one.")
    scores = _multilabel_scores(predictions) if predictions.multilabel else _multiclass_scores(predictions)
    return {name: float(value) for name, value in scores.items()}


def per_class(predictions: Predictions) -> list[_Row]:
    """Give label, support (test images), precision, recall, f1, roc_auc and average_precision of each class.

    Undefined scores are NaN: all of a class without an image, and the roc_auc of a class that every image has.
    """
    columns = _class_scores(predictions)
    support = indicators(predictions).sum(axis=0)
    return [
        {"label": label, "support": int(support[k]), **{name: float(columns[name][k]) for name in CLASS_SCORES}}
        for k, label in enumerate(predictions.labels)
    ]


def indicators(predictions: Predictions) -> np.ndarray:
    """The targets as (N, K) int64 of 0 and 1, for both tasks."""
    if predictions.multilabel:
        return predictions.targets.astype(np.int64)
    return np.asarray(np.eye(len(predictions.labels), dtype=np.int64)[predictions.targets])


def image_losses(predictions: Predictions) -> np.ndarray:
    """The loss of each image, (N,) float64, on probabilities cut at the resolution of their type."""
    epsilon = np.finfo(predictions.probabilities.dtype).eps
    probabilities = np.clip(predictions.probabilities.astype(np.float64), epsilon, 1 - epsilon)
    if not predictions.multilabel:
        true = np.take_along_axis(probabilities, predictions.targets[:, None], axis=1)[:, 0]
        return np.asarray(-np.log(true))
    right = np.where(predictions.targets == 1, probabilities, 1 - probabilities)
    return np.asarray(-np.log(right).mean(axis=1))


def judged_decisions(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Give what calibration is about: (N, C) float64 probabilities and (N, C) whether each came true.

    C is 1, the most probable label, or all K for multi-label.
    """
    probabilities = predictions.probabilities.astype(np.float64)
    if predictions.multilabel:
        return probabilities, predictions.targets == 1
    return probabilities.max(axis=1, keepdims=True), (predictions.predicted == predictions.targets)[:, None]


def probability_bins(probabilities: np.ndarray) -> np.ndarray:
    """Number the bin of each probability as torchmetrics does: 15 of equal width, and a last one for 1 exactly."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1), probabilities, side="right") - 1


def _multiclass_scores(predictions: Predictions) -> dict[str, float]:
    num_classes = len(predictions.labels)
    probabilities, targets = _tensors(predictions)
    predicted = torch.from_numpy(predictions.predicted)
    columns = _class_scores(predictions)
    scores = {"accuracy": multiclass_accuracy(predicted, targets, num_classes, average="micro").item()}
    if num_classes > TOP:
        top = multiclass_accuracy(probabilities, targets, num_classes, average="micro", top_k=TOP)
        scores["accuracy_top5"] = top.item()
    scores |= {f"{name}_macro": mean_of_defined(columns[name]) for name in _MULTICLASS}
    aucs = columns["roc_auc"]
    scores["roc_auc"] = float(aucs[1]) if num_classes == 2 else mean_of_defined(aucs)
    scores["average_precision"] = mean_of_defined(columns["average_precision"])
    error = multiclass_calibration_error(probabilities, targets, probabilities.shape[1], BINS)
    scores["calibration_error"] = float(error.item())
    scores["loss"] = float(image_losses(predictions).mean())
    return scores


def _multilabel_scores(predictions: Predictions) -> dict[str, float]:
    num_labels = len(predictions.labels)
    probabilities, targets = _tensors(predictions)
    columns = _class_scores(predictions)
    common: dict[str, Any] = {"num_labels": num_labels, "threshold": THRESHOLD}
    scores = {
        "accuracy": multilabel_accuracy(probabilities, targets, average="micro", **common).item(),
        "exact_match": multilabel_exact_match(probabilities, targets, **common).item(),
    }
    anything = bool(targets.any())
    for name, metric in _MULTILABEL.items():
        scores[f"{name}_macro"] = mean_of_defined(columns[name])
        micro = metric(probabilities, targets, average="micro", **common).item()
        scores[f"{name}_micro"] = micro if anything else math.nan
    scores["roc_auc"] = mean_of_defined(columns["roc_auc"])
    scores["average_precision"] = mean_of_defined(columns["average_precision"])
    scores["calibration_error"] = binary_calibration_error(probabilities.flatten(), targets.flatten(), BINS).item()
    scores["loss"] = float(image_losses(predictions).mean())
    return scores


def _class_scores(predictions: Predictions) -> dict[str, np.ndarray]:
    """(K,) float64 of each of CLASS_SCORES, NaN where a class cannot be measured."""
    num_classes = len(predictions.labels)
    probabilities, targets = _tensors(predictions)
    if predictions.multilabel:
        columns = {name: m(probabilities, targets, num_classes, THRESHOLD, "none") for name, m in _MULTILABEL.items()}
    else:
        predicted = torch.from_numpy(predictions.predicted)
        columns = {name: m(predicted, targets, num_classes, average="none") for name, m in _MULTICLASS.items()}
    one_hot = torch.from_numpy(indicators(predictions))
    support = one_hot.sum(dim=0)
    scores = {name: column.double().reshape(-1).numpy().copy() for name, column in columns.items()}
    for column in scores.values():
        column[support.numpy() == 0] = math.nan
    scores["roc_auc"] = np.full(num_classes, math.nan)
    scores["average_precision"] = np.full(num_classes, math.nan)
    for k in range(num_classes):
        if support[k] > 0:
            scores["average_precision"][k] = binary_average_precision(probabilities[:, k], one_hot[:, k]).item()
        if 0 < support[k] < predictions.num:
            scores["roc_auc"][k] = binary_auroc(probabilities[:, k], one_hot[:, k]).item()
    return scores


def mean_of_defined(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _tensors(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """Probabilities as float64, so that sums over many images keep their digits, and targets as int64."""
    return (
        torch.from_numpy(predictions.probabilities.astype(np.float64)),
        torch.from_numpy(predictions.targets.astype(np.int64)),
    )
