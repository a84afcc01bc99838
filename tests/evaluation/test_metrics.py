"""The metrics equal scikit-learn's, and what cannot be measured is never a number."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics

from finetune.errors import DataError, RunError
from finetune.evaluation.metrics import CLASS_SCORES, compute_metrics, per_class
from finetune.evaluation.predictions import Predictions

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")


def make_predictions(targets, probabilities, task="multiclass"):
    probabilities = np.asarray(probabilities, np.float32)
    ids = np.array([f"image{i}" for i in range(len(probabilities))], object)
    labels = tuple(f"class{k:02}" for k in range(probabilities.shape[1]))
    return Predictions(ids, ids, np.asarray(targets), probabilities, labels, task, pd.DataFrame(index=range(len(ids))))


def random_multiclass(num, num_classes, *, seed, ties=False, absent=(), sure=1.5):
    generator = np.random.default_rng(seed)
    allowed = [k for k in range(num_classes) if k not in absent]
    targets = generator.choice(allowed, num)
    logits = generator.normal(size=(num, num_classes))
    logits[np.arange(num), targets] += sure
    if ties:
        logits = np.round(logits)
    powers = np.exp(logits)
    return make_predictions(targets, powers / powers.sum(axis=1, keepdims=True))


def random_multilabel(num, num_labels, *, seed, ties=False, empty=(), full=()):
    generator = np.random.default_rng(seed)
    targets = (generator.random((num, num_labels)) < 0.35).astype(int)
    targets[:, list(empty)] = 0
    targets[:, list(full)] = 1
    logits = generator.normal(size=(num, num_labels)) + targets - 0.5
    logits = np.round(logits) + 0.25 if ties else logits
    return make_predictions(targets, 1 / (1 + np.exp(-logits)), "multilabel")


def expected_calibration_error(confidence, right):
    """The definition, one bin after the other."""
    bins = np.minimum((confidence.astype(np.float64) * 15).astype(int), 14)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
    return sum(gaps)


def reference_multiclass(predictions):
    targets, probabilities, predicted = predictions.targets, predictions.probabilities, predictions.predicted
    num_classes = len(predictions.labels)
    present = np.unique(targets)
    one_hot = np.eye(num_classes)[targets]
    averages = {"labels": present, "average": "macro", "zero_division": 0}
    aucs = [metrics.roc_auc_score(one_hot[:, k], probabilities[:, k]) for k in present if len(present) > 1]
    expected = {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "precision_macro": metrics.precision_score(targets, predicted, **averages),
        "recall_macro": metrics.recall_score(targets, predicted, **averages),
        "f1_macro": metrics.f1_score(targets, predicted, **averages),
        "roc_auc": np.mean(aucs) if aucs else math.nan,
        "average_precision": np.mean(
            [metrics.average_precision_score(one_hot[:, k], probabilities[:, k]) for k in present]
        ),
        "calibration_error": expected_calibration_error(probabilities.max(axis=1), predicted == targets),
        "loss": metrics.log_loss(targets, probabilities.astype(np.float64), labels=range(num_classes)),
    }
    if num_classes > 5:
        expected["accuracy_top5"] = metrics.top_k_accuracy_score(targets, probabilities, k=5, labels=range(num_classes))
    return expected


def reference_multilabel(predictions):
    targets, probabilities = predictions.targets, predictions.probabilities
    decided = probabilities > 0.5
    present = np.flatnonzero(targets.any(axis=0))
    mixed = [k for k in present if not targets[:, k].all()]
    expected = {
        "accuracy": (decided == targets).mean(),
        "exact_match": metrics.accuracy_score(targets, decided),
        "roc_auc": np.mean([metrics.roc_auc_score(targets[:, k], probabilities[:, k]) for k in mixed]),
        "average_precision": np.mean(
            [metrics.average_precision_score(targets[:, k], probabilities[:, k]) for k in present]
        ),
        "calibration_error": expected_calibration_error(probabilities.ravel(), targets.ravel()),
        "loss": metrics.log_loss(targets.ravel(), probabilities.ravel().astype(np.float64)),
    }
    for name in ("precision", "recall", "f1"):
        function = getattr(metrics, f"{name}_score")
        for average, labels in (("macro", present), ("micro", None)):
            expected[f"{name}_{average}"] = function(targets, decided, labels=labels, average=average, zero_division=0)
    return expected


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize("num_classes", [2, 3, 12])
@pytest.mark.parametrize("num", [2, 37, 500])
def test_multiclass_scores_equal_scikit_learn(num, num_classes):
    predictions = random_multiclass(num, num_classes, seed=num + num_classes)
    assert_same(compute_metrics(predictions), reference_multiclass(predictions))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_tied_probabilities_score_as_in_scikit_learn(num_classes):
    predictions = random_multiclass(300, num_classes, seed=3, ties=True)
    assert len(np.unique(predictions.probabilities)) < 100
    assert_same(compute_metrics(predictions), reference_multiclass(predictions))


@pytest.mark.parametrize("absent", [(0,), (3, 7, 11)])
def test_classes_without_images_are_left_out_of_macro_averages(absent):
    predictions = random_multiclass(200, 12, seed=5, absent=absent, sure=0.5)
    assert set(absent) & set(predictions.predicted)
    assert_same(compute_metrics(predictions), reference_multiclass(predictions))


def test_macro_scores_equal_scikit_learns_defaults_when_every_class_has_images():
    predictions = random_multiclass(300, 5, seed=8)
    found = compute_metrics(predictions)
    assert found["f1_macro"] == pytest.approx(
        metrics.f1_score(predictions.targets, predictions.predicted, average="macro"), abs=1e-6
    )
    assert found["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(predictions.targets, softened(predictions), multi_class="ovr"), abs=1e-6
    )


def softened(predictions):
    """Probabilities that sum to 1 in float64, as scikit-learn insists."""
    probabilities = predictions.probabilities.astype(np.float64)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def test_binary_roc_auc_takes_the_second_label_as_positive():
    predictions = make_predictions([0, 1, 0, 1], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.75, 0.25]])
    assert compute_metrics(predictions)["roc_auc"] == pytest.approx(
        metrics.roc_auc_score([0, 1, 0, 1], predictions.probabilities[:, 1])
    )


def test_one_image_leaves_undefined_what_one_image_cannot_measure():
    predictions = make_predictions([1], [[0.2, 0.7, 0.1]])
    found = compute_metrics(predictions)
    assert math.isnan(found["roc_auc"])
    assert found["accuracy"] == found["f1_macro"] == found["average_precision"] == 1.0
    assert found["loss"] == pytest.approx(-math.log(0.7), abs=1e-6)


def test_binary_set_of_one_class_has_no_roc_auc():
    found = compute_metrics(make_predictions([0, 0], [[0.9, 0.1], [0.4, 0.6]]))
    assert math.isnan(found["roc_auc"])
    assert found["accuracy"] == 0.5


def test_certain_and_wrong_has_a_finite_loss():
    found = compute_metrics(make_predictions([0, 1], [[0.0, 1.0], [0.0, 1.0]]))
    assert found["loss"] == pytest.approx(metrics.log_loss([0, 1], np.float32([[0, 1], [0, 1]])), abs=1e-5)


@pytest.mark.parametrize(
    "case",
    [
        {"num": 200, "num_labels": 2},
        {"num": 200, "num_labels": 6, "ties": True},
        {"num": 90, "num_labels": 6, "empty": (1, 4)},
        {"num": 90, "num_labels": 5, "full": (2,)},
    ],
)
def test_multilabel_scores_equal_scikit_learn(case):
    predictions = random_multilabel(seed=11, **case)
    assert_same(compute_metrics(predictions), reference_multilabel(predictions))


def test_multilabel_set_without_any_label_measures_only_decisions():
    found = compute_metrics(make_predictions(np.zeros((3, 2), int), [[0.1, 0.2], [0.3, 0.7], [0.1, 0.1]], "multilabel"))
    defined = {name for name, value in found.items() if not math.isnan(value)}
    assert defined == {"accuracy", "exact_match", "calibration_error", "loss"}


def test_per_class_table_equals_scikit_learn_and_explains_the_macro_scores():
    predictions = random_multiclass(150, 12, seed=2, absent=(4,), sure=0.5)
    rows = per_class(predictions)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        predictions.targets, predictions.predicted, labels=range(12), zero_division=0
    )
    for k, row in enumerate(rows):
        assert (row["label"], row["support"]) == (predictions.labels[k], support[k])
        if k != 4:
            assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
                [precision[k], recall[k], f1[k]], abs=1e-6
            )
    found = compute_metrics(predictions)
    for name in ("precision", "recall", "f1"):
        assert np.nanmean([row[name] for row in rows]) == pytest.approx(found[f"{name}_macro"])
    for name in ("roc_auc", "average_precision"):
        assert np.nanmean([row[name] for row in rows]) == pytest.approx(found[name])


def test_class_without_images_has_no_scores():
    row = per_class(random_multiclass(150, 12, seed=2, absent=(4,), sure=0.5))[4]
    assert row["support"] == 0
    assert all(math.isnan(row[name]) for name in CLASS_SCORES)


def test_class_that_is_never_predicted_has_precision_zero():
    row = per_class(make_predictions([0, 1, 1], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]))[1]
    assert (row["precision"], row["recall"], row["f1"], row["support"]) == (0.0, 0.0, 0.0, 2)


def test_no_images_cannot_be_scored():
    with pytest.raises(DataError, match="no images to score"):
        compute_metrics(make_predictions(np.zeros(0, int), np.zeros((0, 3))))


def test_probabilities_that_are_not_numbers_are_refused_and_counted():
    with pytest.raises(RunError, match="2 of 3 images"):
        make_predictions([0, 1, 1], [[math.nan, 0.1], [0.8, 0.2], [math.inf, 0.3]])
