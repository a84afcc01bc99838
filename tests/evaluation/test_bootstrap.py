"""Bootstrap intervals resample whole images, weigh ties as scikit-learn does, and say nothing they cannot know."""

import json
import math
import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, binomtest
from sklearn import metrics

from finetune.evaluation.bootstrap import (
    ENDS,
    Resamples,
    binomial_interval,
    bootstrap,
    class_rows,
    draw_weights,
    metrics_document,
)
from finetune.evaluation.metrics import CLASS_SCORES, compute_metrics, per_class
from finetune.evaluation.predictions import Predictions
from finetune.evaluation.weighted_auc import Ranking


def make_predictions(num, num_classes, *, seed=0, task="multiclass", sure=1.5, ties=False):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num, num_classes))
    if task == "multiclass":
        targets = generator.integers(0, num_classes, num)
        logits[np.arange(num), targets] += sure
        logits = np.round(logits) if ties else logits
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    else:
        targets = (generator.random((num, num_classes)) < 0.3).astype(int)
        logits += sure * (targets - 0.5)
        probabilities = 1 / (1 + np.exp(-logits))
    ids = np.array([f"image{i}" for i in range(num)], object)
    labels = tuple(f"class{k}" for k in range(num_classes))
    return Predictions(ids, ids, targets, probabilities, labels, task, pd.DataFrame(index=range(num)))


def take(predictions, rows):
    return Predictions(
        predictions.ids[rows],
        predictions.paths[rows],
        predictions.targets[rows],
        predictions.probabilities[rows],
        predictions.labels,
        predictions.task,
        pd.DataFrame(index=range(len(rows))),
    )


@pytest.mark.parametrize("ties", [False, True])
def test_areas_equal_scikit_learn_with_sample_weight(ties):
    generator = np.random.default_rng(4)
    positive = generator.random(120) < 0.3
    scores = (generator.normal(size=120) + positive).astype(np.float32)
    scores = np.round(scores) if ties else scores
    weights = next(draw_weights(120, 30, seed=1))
    aucs, precisions = Ranking(scores, positive).areas(weights)
    for column, auc, precision in zip(weights.T, aucs, precisions, strict=True):
        assert auc == pytest.approx(metrics.roc_auc_score(positive, scores, sample_weight=column), abs=1e-9)
        expected = metrics.average_precision_score(positive, scores, sample_weight=column)
        assert precision == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "case",
    [
        {"num_classes": 2},
        {"num_classes": 3, "ties": True},
        {"num_classes": 12},
        {"num_classes": 4, "task": "multilabel"},
    ],
)
def test_each_resample_scores_like_the_resampled_images(case):
    predictions = make_predictions(40, **case)
    found = Resamples.draw(predictions, 12, seed=3).scores
    weights = np.concatenate(list(draw_weights(40, 12, seed=3)), axis=1).astype(int)
    for column in range(12):
        expected = compute_metrics(take(predictions, np.repeat(np.arange(40), weights[:, column])))
        assert set(found) == set(expected)
        for name, value in expected.items():
            if case == {"num_classes": 3, "ties": True} and name == "accuracy_top5":
                continue
            assert found[name][column] == pytest.approx(value, abs=2e-6, nan_ok=True), name


@pytest.mark.parametrize("case", [{"num_classes": 3}, {"num_classes": 4, "task": "multilabel"}])
def test_each_resample_scores_its_classes_like_the_resampled_images(case):
    predictions = make_predictions(25, **case)
    found = Resamples.draw(predictions, 8, seed=3).classes
    weights = np.concatenate(list(draw_weights(25, 8, seed=3)), axis=1).astype(int)
    for column in range(8):
        rows = per_class(take(predictions, np.repeat(np.arange(25), weights[:, column])))
        for name in CLASS_SCORES:
            expected = [row[name] for row in rows]
            assert found[name][:, column] == pytest.approx(expected, abs=2e-6, nan_ok=True), name


def test_recall_of_a_class_has_about_the_binomial_interval_of_its_images():
    predictions = make_predictions(900, 3, seed=6)
    for row in class_rows(predictions, 4000):
        low, recall, high = (row[name] for name in ("recall_low", "recall", "recall_high"))
        half = 1.96 * math.sqrt(recall * (1 - recall) / row["support"])
        assert (low, high) == pytest.approx((recall - half, recall + half), abs=0.012)


@pytest.mark.parametrize(("hits", "num"), [(0, 1), (1, 1), (0, 12), (3, 12), (12, 12), (40, 977)])
def test_bounds_of_a_proportion_equal_scipys_exact_ones(hits, num):
    low, high = binomial_interval(np.array([hits]), np.array([num]))
    expected = binomtest(hits, num).proportion_ci(0.95, method="exact")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_proportion_of_none_has_no_bounds():
    low, high = binomial_interval(np.array([0, 1]), np.array([0, 2]))
    assert (np.isnan(low).tolist(), np.isnan(high).tolist()) == ([True, False], [True, False])


def test_a_class_that_is_always_right_has_the_exact_bound_of_its_number_of_images():
    predictions = make_predictions(60, 3, sure=60.0)
    for row in class_rows(predictions, 100):
        for name in ("recall", "precision"):
            bounds = (row[f"{name}_low"], row[f"{name}_high"])
            assert bounds == pytest.approx((beta.ppf(0.025, row["support"], 1), 1.0))
        assert row["f1_low"] is row["f1_high"] is None


def test_a_class_that_is_rarely_called_and_always_rightly_is_not_certain():
    probabilities = np.tile(np.float32([0.9, 0.1]), (40, 1))
    probabilities[:2] = [0.2, 0.8]
    targets = np.repeat([1, 0], [10, 30])
    ids = np.arange(40).astype(str).astype(object)
    predictions = Predictions(ids, ids, targets, probabilities, ("a", "b"), "multiclass", pd.DataFrame())
    row = class_rows(predictions, 500)[1]
    # a third of the resamples never call it, and most others only rightly
    assert (row["precision"], row["precision_high"]) == (1.0, 1.0)
    assert row["precision_low"] == pytest.approx(beta.ppf(0.025, 2, 1))


def test_document_holds_the_scores_of_each_class_with_their_intervals():
    predictions = make_predictions(80, 3)
    rows = metrics_document({"test": predictions}, resamples=60, seed=4)["per_class"]["test"]
    assert rows == class_rows(predictions, 60, seed=4)
    for row, scores in zip(rows, per_class(predictions), strict=True):
        assert set(row) == {*scores, *(f"{name}_{end}" for name in CLASS_SCORES for end in ENDS)}
        for name in CLASS_SCORES:
            assert row[f"{name}_low"] <= row[name] == scores[name] <= row[f"{name}_high"]


def test_weights_are_draws_with_replacement_and_do_not_depend_on_chunks():
    whole = np.concatenate(list(draw_weights(5000, 200, seed=9)), axis=1)
    assert whole.shape == (5000, 200)
    assert (whole.sum(axis=0) == 5000).all()
    assert whole.var() == pytest.approx(1, rel=0.02)
    again = np.concatenate(list(draw_weights(5000, 60, seed=9)), axis=1)
    assert (again[:, :50] == whole[:, :50]).all()


def test_same_seed_gives_the_same_intervals_and_another_seed_others():
    predictions = make_predictions(80, 4)
    assert bootstrap(predictions, 200, seed=1) == bootstrap(predictions, 200, seed=1)
    assert bootstrap(predictions, 200, seed=1) != bootstrap(predictions, 200, seed=2)


@pytest.mark.parametrize("case", [{"num_classes": 2}, {"num_classes": 10}, {"num_classes": 5, "task": "multilabel"}])
def test_intervals_contain_the_measured_value(case):
    predictions = make_predictions(200, seed=5, **case)
    intervals = bootstrap(predictions, 300)
    for name, value in compute_metrics(predictions).items():
        low, high = intervals[name]
        assert low <= value <= high, name
        assert low < high, name


def test_accuracy_interval_agrees_with_the_binomial_one():
    predictions = make_predictions(400, 5, seed=6)
    accuracy = compute_metrics(predictions)["accuracy"]
    low, high = bootstrap(predictions, 4000)["accuracy"]
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / 400)
    assert (low, high) == pytest.approx((accuracy - half, accuracy + half), abs=0.006)


def test_all_right_gives_the_exact_binomial_bound_instead_of_certainty():
    predictions = make_predictions(50, 3, sure=60.0)
    intervals = bootstrap(predictions, 100)
    assert intervals["accuracy"] == pytest.approx((beta.ppf(0.025, 50, 1), 1.0))
    assert all(math.isnan(bound) for bound in intervals["f1_macro"])


def test_all_wrong_gives_the_exact_binomial_bound_instead_of_certainty():
    predictions = make_predictions(50, 3, sure=-60.0)
    assert bootstrap(predictions, 100)["accuracy"] == pytest.approx((0.0, beta.ppf(0.975, 1, 50)))


def test_multilabel_all_right_bounds_exact_match_and_accuracy():
    predictions = make_predictions(30, 3, task="multilabel", sure=90.0)
    intervals = bootstrap(predictions, 50)
    assert intervals["exact_match"] == intervals["accuracy"] == pytest.approx((0.025 ** (1 / 30), 1.0))


def test_one_image_has_no_interval_but_that_of_its_accuracy():
    document = metrics_document({"test": make_predictions(1, 3, sure=9.0)}, resamples=20)
    known = {name for name, entry in document["test"].items() if entry["low"] is not None}
    assert known == {"accuracy"}
    assert document["test"]["accuracy"]["low"] == pytest.approx(0.025)


def test_document_has_value_low_and_high_of_each_split_and_is_plain_json():
    splits = {"test": make_predictions(1, 3), "val": make_predictions(30, 3)}
    document = metrics_document(splits, resamples=50, seed=2)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["n"] == {"test": 1, "val": 30}
    assert document["test"]["roc_auc"] == {"value": None, "low": None, "high": None}
    assert set(document["val"]["accuracy"]) == {"value", "low", "high"}
    assert [row["label"] for row in document["per_class"]["val"]] == ["class0", "class1", "class2"]
    assert document["per_class"]["test"][splits["test"].targets[0] - 1]["recall"] is None


def test_no_resamples_gives_values_without_intervals():
    entry = metrics_document({"test": make_predictions(30, 3)}, resamples=0)["test"]["accuracy"]
    assert entry["value"] is not None
    assert entry["low"] is entry["high"] is None
    rows = metrics_document({"test": make_predictions(30, 3)}, resamples=0)["per_class"]["test"]
    assert {row["recall_low"] for row in rows} == {None}


def test_a_thousand_resamples_of_a_usual_test_set_take_well_below_a_second():
    predictions = make_predictions(360, 10)
    started = time.process_time()
    Resamples.draw(predictions, 1000, seed=0)
    assert time.process_time() - started < 1.0


@pytest.mark.slow
def test_a_thousand_resamples_of_ten_thousand_images_take_a_few_seconds():
    predictions = make_predictions(10_000, 10)
    started = time.process_time()
    Resamples.draw(predictions, 1000, seed=0)
    assert time.process_time() - started < 8.0
