"""Gains and lift have their closed forms for perfect, random and reversed rankings, and share ties evenly."""

import numpy as np
import pytest
from scored import predicted

from finetune.evaluation.curves.gains import cumulative_gains
from finetune.evaluation.curves.threshold_counts import count_class, count_thresholds

SHARES = np.array([0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 1.0])


def ranking(num, prevalence, order):
    truth = np.arange(num) < num * prevalence
    scores = {"perfect": -np.arange(num), "reversed": np.arange(num), "tied": np.zeros(num)}[order]
    return cumulative_gains(count_thresholds(scores.astype(float), truth))


@pytest.mark.parametrize("prevalence", [0.05, 0.2, 0.5])
def test_perfect_ranking_finds_all_first(prevalence):
    found = ranking(1000, prevalence, "perfect")
    np.testing.assert_allclose(found.found_at(SHARES), np.minimum(1, SHARES / prevalence))
    np.testing.assert_allclose(found.lift_at(SHARES), np.minimum(1 / prevalence, 1 / SHARES))
    np.testing.assert_allclose(found.lift_at(SHARES), found.best_lift_at(SHARES))


@pytest.mark.parametrize("prevalence", [0.05, 0.2, 0.5])
def test_ranking_that_knows_nothing_finds_as_by_chance(prevalence):
    found = ranking(1000, prevalence, "tied")
    np.testing.assert_allclose(found.found_at(SHARES), SHARES)
    np.testing.assert_allclose(found.lift_at(SHARES), 1)


def test_reversed_ranking_finds_none_until_only_they_are_left():
    found = ranking(1000, 0.2, "reversed")
    np.testing.assert_allclose(found.found_at(SHARES), np.maximum(0, SHARES - 0.8) / 0.2, atol=1e-12)


def test_random_scores_gain_nothing():
    generator = np.random.default_rng(0)
    found = cumulative_gains(count_thresholds(generator.random(40_000), generator.random(40_000) < 0.3))
    np.testing.assert_allclose(found.found_at(SHARES), SHARES, atol=0.02)


def test_ties_are_shared_evenly_whatever_the_order_of_the_rows():
    scores, truth = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 1, 0, 0], bool)
    expected = [1 / 3, 1 / 3 + 2 / 3 * 1 / 4, 1 / 3 + 2 / 3 * 2 / 4, 1.0, 1.0]
    for rows in (np.arange(6), np.array([3, 1, 0, 5, 4, 2]), np.array([4, 2, 5, 0, 1, 3])):
        found = cumulative_gains(count_thresholds(scores[rows], truth[rows]))
        np.testing.assert_allclose(found.found_at(np.array([1, 2, 3, 5, 6]) / 6), expected)


def test_a_class_without_an_image_has_no_gains():
    assert cumulative_gains(count_class(predicted([0, 0], [[0.9, 0.1], [0.6, 0.4]]), 1)) is None
