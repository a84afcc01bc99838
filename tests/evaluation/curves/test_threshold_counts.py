"""Counts at a threshold are those of scikit-learn, whatever the order of the images."""

import numpy as np
import pytest
from scored import predicted, scored
from sklearn import metrics

from finetune.evaluation.curves.threshold_counts import (
    count_class,
    count_classes,
    count_pairs,
    count_thresholds,
    reported_classes,
)


@pytest.mark.parametrize("case", [{}, {"ties": True}, {"multilabel": True}, {"multilabel": True, "ties": True}])
def test_counts_equal_scikit_learns_at_every_threshold(case):
    predictions = scored(80, 4, seed=3, **case)
    truth = predictions.targets if predictions.multilabel else np.eye(4)[predictions.targets]
    for number, ranked in enumerate(count_classes(predictions)):
        scores = predictions.probabilities[:, number]
        assert (ranked.thresholds == np.unique(scores)[::-1]).all()
        for place, threshold in enumerate(ranked.thresholds):
            (_, alarms), (_, hits) = metrics.confusion_matrix(truth[:, number], scores >= threshold)
            assert (ranked.hits[place], ranked.alarms[place]) == (hits, alarms)
            assert ranked.counts_at(threshold) == (hits, alarms)


def test_a_threshold_between_two_probabilities_flags_those_above_it():
    ranked = count_thresholds(np.array([0.9, 0.6, 0.6, 0.1]), np.array([True, False, True, True]))
    assert [ranked.counts_at(threshold) for threshold in (1.0, 0.9, 0.7, 0.6, 0.1, 0.0)] == [
        *((0, 0), (1, 0), (1, 0), (2, 1), (3, 1), (3, 1))
    ]


def test_order_of_the_images_does_not_matter():
    predictions = scored(60, 3, ties=True)
    rows = np.random.default_rng(1).permutation(60)
    shuffled = predicted(predictions.targets[rows], predictions.probabilities[rows])
    one, other = count_class(predictions, 1), count_class(shuffled, 1)
    for name in ("thresholds", "hits", "alarms"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_decisions_count_every_pair_of_image_and_class():
    ranked = count_pairs(scored(50, 4))
    assert (ranked.positives, ranked.negatives, ranked.hits[-1], ranked.alarms[-1]) == (50, 150, 50, 150)


def test_of_two_classes_the_second_stands_for_both():
    assert reported_classes(scored(5, 2)) == (1,)
    assert reported_classes(scored(5, 2, multilabel=True)) == (0, 1)
    assert reported_classes(scored(5, 3)) == (0, 1, 2)


def test_no_image_has_no_threshold():
    ranked = count_thresholds(np.zeros(0), np.zeros(0, bool))
    assert (ranked.num, len(ranked.thresholds), ranked.counts_at(0.5)) == (0, 0, (0, 0))
