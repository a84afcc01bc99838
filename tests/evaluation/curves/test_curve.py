"""Points and areas of curves are scikit-learn's, of classes and averages, and a thinned line does not move."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored import predicted, scored
from sklearn import metrics

from finetune.evaluation.curves.averages import precision_recall_curves, roc_curves
from finetune.evaluation.curves.curve import precision_recall_curve, roc_curve, simplify_curve, step_curve
from finetune.evaluation.curves.threshold_counts import count_classes, count_pairs, count_thresholds
from finetune.evaluation.metrics import compute_metrics

CASES = [
    {"num_labels": 2},
    {"num_labels": 5},
    {"num_labels": 5, "ties": True},
    {"num_labels": 4, "multilabel": True},
    {"num_labels": 4, "multilabel": True, "ties": True},
]


def both(predictions):
    classes, decisions = count_classes(predictions), count_pairs(predictions)
    return roc_curves(classes, decisions), precision_recall_curves(classes, decisions)


def one_hot(predictions):
    return predictions.targets if predictions.multilabel else np.eye(len(predictions.labels))[predictions.targets]


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60))
@settings(max_examples=150, deadline=None)
def test_points_and_areas_of_any_ranking_equal_scikit_learn(rows):
    scores, truth = np.array([row[0] / 12 for row in rows]), np.array([row[1] for row in rows])
    ranked = count_thresholds(scores, truth)
    roc, recall_precision = roc_curve(ranked), precision_recall_curve(ranked)
    assert (roc is None) == (truth.all() or not truth.any())
    assert (recall_precision is None) == (not truth.any())
    if roc is not None:
        x, y, thresholds = metrics.roc_curve(truth, scores)
        for found, expected in ((roc.x, x), (roc.y, y), (roc.thresholds, thresholds)):
            np.testing.assert_allclose(found, expected, atol=1e-12)
        assert roc.area == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-9)
    if recall_precision is not None:
        precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)
        np.testing.assert_allclose(recall_precision.x[::-1], recall, atol=1e-12)
        np.testing.assert_allclose(recall_precision.y[::-1], precision, atol=1e-12)
        np.testing.assert_allclose(recall_precision.thresholds[:0:-1], thresholds)
        assert recall_precision.area == pytest.approx(metrics.average_precision_score(truth, scores), abs=1e-9)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("average", ["macro", "micro"])
def test_average_areas_equal_scikit_learn(case, average):
    predictions = scored(150, seed=2, **case)
    roc, recall_precision = both(predictions)
    truth, probabilities = one_hot(predictions), predictions.probabilities
    expected = metrics.roc_auc_score(truth, probabilities, average=average)
    assert getattr(roc, average).area == pytest.approx(expected, abs=1e-6)
    expected = metrics.average_precision_score(truth, probabilities, average=average)
    assert getattr(recall_precision, average).area == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_area_under_the_drawn_average_is_the_average_area(case):
    roc, recall_precision = both(scored(150, seed=4, **case))
    assert np.trapezoid(roc.macro.y, roc.macro.x) == pytest.approx(roc.macro.area, abs=1e-9)
    assert np.trapezoid(*step_curve(recall_precision.macro)[::-1]) == pytest.approx(
        recall_precision.macro.area, abs=1e-9
    )


def test_average_roc_is_the_mean_of_scikit_learns_curves_between_their_jumps():
    predictions = scored(90, 4, seed=5)
    grid = np.linspace(0.0021, 0.9973, 400)
    columns = zip(one_hot(predictions).T, predictions.probabilities.T, strict=True)
    parts = [metrics.roc_curve(truth, probabilities) for truth, probabilities in columns]
    expected = np.mean([np.interp(grid, x, y) for x, y, _ in parts], axis=0)
    macro = both(predictions)[0].macro
    np.testing.assert_allclose(np.interp(grid, macro.x, macro.y), expected, atol=1e-9)


@pytest.mark.parametrize("case", CASES[1:])
def test_macro_areas_are_those_of_the_scores(case):
    predictions = scored(120, seed=6, absent=(2,), **case)
    roc, recall_precision = both(predictions)
    found = compute_metrics(predictions)
    assert roc.macro.area == pytest.approx(found["roc_auc"], abs=1e-6)
    assert recall_precision.macro.area == pytest.approx(found["average_precision"], abs=1e-6)


def test_a_class_without_an_image_has_no_curve_and_spoils_no_average():
    roc, recall_precision = both(scored(60, 4, absent=(0, 3)))
    assert [curve is None for curve in roc.classes] == [True, False, False, True]
    assert [curve is None for curve in recall_precision.classes] == [True, False, False, True]
    assert np.isnan(roc.areas).tolist() == [True, False, False, True]
    assert roc.macro.area == pytest.approx(np.nanmean(roc.areas))


def test_images_of_one_class_have_no_roc_but_a_precision():
    roc, recall_precision = both(predicted([1, 1], [[0.4, 0.6], [0.7, 0.3]]))
    assert roc.macro is None
    assert [curve and curve.area for curve in recall_precision.classes] == [None, 1.0]


@pytest.mark.parametrize("sure", [0.5, 2.0])
def test_thinned_lines_stay_within_a_pixel_of_all_points(sure):
    generator = np.random.default_rng(0)
    truth = generator.random(10_000) < 0.2
    ranked = count_thresholds(generator.normal(size=10_000) + sure * truth, truth)
    roc = roc_curve(ranked)
    for line in ((roc.x, roc.y), step_curve(precision_recall_curve(ranked))):
        x, y = simplify_curve(line, 200)
        assert len(x) == 200 < len(line[0])
        assert {(line[0][0], line[1][0]), (line[0][-1], line[1][-1])} <= set(zip(x, y, strict=True))
        assert max(distances(line, (x, y))) < 1 / 150


def distances(line, thinned):
    """How far each point of a line is from the segments of another."""
    points = np.stack(line, axis=1)
    starts, ends = np.stack(thinned, axis=1)[:-1], np.stack(thinned, axis=1)[1:]
    found = np.full(len(points), np.inf)
    for start, end in zip(starts, ends, strict=True):
        along = end - start
        part = np.clip(((points - start) @ along) / max(along @ along, 1e-300), 0, 1)
        found = np.minimum(found, np.linalg.norm(points - start - part[:, None] * along, axis=1))
    return found


def test_short_and_straight_lines_keep_what_they_need():
    x = np.linspace(0, 1, 1000)
    assert [len(part) for part in simplify_curve((x, 2 * x), 10)] == [2, 2]
    assert simplify_curve((x[:5], x[:5]), 10)[0] is not None
    kept = simplify_curve((np.array([0, 0.3, 0.3, 1.0]), np.array([0, 0.0, 1.0, 1.0])), 3)
    assert len(kept[0]) == 3
