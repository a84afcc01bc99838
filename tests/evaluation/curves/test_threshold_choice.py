"""Thresholds do what they say, none that is shown is beaten by another, and the one that is chosen is the best."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored import scored
from sklearn import metrics

from finetune.errors import ConfigError
from finetune.evaluation.curves.operating_points import OperatingChoice, operating_point
from finetune.evaluation.curves.threshold_choice import (
    decide_at_rank,
    decide_at_threshold,
    pareto_thresholds,
    shortest_between,
    threshold_table,
)
from finetune.evaluation.curves.threshold_counts import count_class, count_thresholds

ROWS = st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=30)


def ranking(rows):
    return count_thresholds(np.array([row[0] / 10 for row in rows]), np.array([row[1] for row in rows]))


def everything(ranked):
    return [decide_at_rank(ranked, place) for place in range(-1, len(ranked.thresholds))]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.7])
def test_each_measure_equals_scikit_learn(multilabel, threshold):
    predictions = scored(150, 3, seed=4, multilabel=multilabel)
    truth = predictions.targets[:, 1] if multilabel else predictions.targets == 1
    called = predictions.probabilities[:, 1] >= threshold
    found = decide_at_threshold(count_class(predictions, 1), threshold)
    assert found.precision == pytest.approx(metrics.precision_score(truth, called), abs=1e-9)
    assert found.recall == pytest.approx(metrics.recall_score(truth, called), abs=1e-9)
    assert found.f1 == pytest.approx(metrics.f1_score(truth, called), abs=1e-9)
    assert found.specificity == pytest.approx(metrics.recall_score(truth, called, pos_label=0), abs=1e-9)
    assert found.share == pytest.approx(called.mean(), abs=1e-9)


@given(ROWS)
@settings(max_examples=80, deadline=None)
def test_useful_thresholds_are_exactly_those_that_no_other_beats(rows):
    ranked = ranking(rows)
    points = list(zip(ranked.hits.tolist(), ranked.alarms.tolist(), strict=True))
    best = [
        place
        for place, (hits, alarms) in enumerate(points)
        if hits and not any(h >= hits and a <= alarms and (h, a) != (hits, alarms) for h, a in points)
    ]
    assert pareto_thresholds(ranked, limit=100) == best


@given(ROWS)
@settings(max_examples=80, deadline=None)
def test_shortened_thresholds_flag_the_same_images(rows):
    ranked = ranking(rows)
    for place, (hits, alarms) in enumerate(zip(ranked.hits, ranked.alarms, strict=True)):
        found = decide_at_rank(ranked, place)
        assert (found.hits, found.alarms) == (hits, alarms)
        assert found.threshold <= ranked.thresholds[place]
    assert decide_at_rank(ranked, -1).flagged == 0


def test_thresholds_have_as_few_digits_as_tell_the_images_apart():
    assert shortest_between(0.31, 0.7649) == 0.7
    assert shortest_between(0.7631, 0.7649) == 0.764
    assert shortest_between(0.5, 0.5 + 1e-12) == 0.5 + 1e-12
    assert shortest_between(-math.inf, 0.0004) == 0.0


def test_table_is_short_and_holds_the_given_thresholds():
    predictions = scored(3000, 2, sure=1.0)
    rows = threshold_table(count_class(predictions, 1), also=(0.5, 0.123), limit=12)
    assert {0.5, 0.123} <= {row.threshold for row in rows}
    assert 12 <= len(rows) <= 14
    assert [row.threshold for row in rows] == sorted((row.threshold for row in rows), reverse=True)
    recalls = [row.recall for row in rows]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1.0


@given(ROWS, st.sampled_from([(1.0, 1.0), (1.0, 5.0), (7.0, 1.0), (0.0, 1.0), (1.0, 0.0)]))
@settings(max_examples=80, deadline=None)
def test_no_threshold_costs_less_than_the_chosen_one(rows, costs):
    ranked = ranking(rows)
    choice = OperatingChoice(cost_fp=costs[0], cost_fn=costs[1])
    found = operating_point(ranked, choice)
    assert (found is None) == (not ranked.positives)
    if found is not None:
        assert choice.cost(found) == min(choice.cost(other) for other in everything(ranked))


@given(ROWS, st.sampled_from([0.3, 0.5, 0.75, 1.0]))
@settings(max_examples=80, deadline=None)
def test_minimum_precision_is_kept_with_the_highest_recall(rows, least):
    ranked = ranking(rows)
    found = operating_point(ranked, OperatingChoice(min_precision=least))
    reaching = [row for row in everything(ranked) if row.hits and row.precision >= least]
    assert (found is None) == (not reaching)
    if found is not None:
        best = max((row.recall, row.precision) for row in reaching)
        assert (found.recall, found.precision) == best


@given(ROWS, st.sampled_from([0.3, 0.5, 0.75, 1.0]))
@settings(max_examples=80, deadline=None)
def test_minimum_recall_is_kept_with_the_highest_precision(rows, least):
    ranked = ranking(rows)
    found = operating_point(ranked, OperatingChoice(min_recall=least))
    assert (found is None) == (not ranked.positives)
    if found is not None:
        assert found.recall >= least
        assert found.precision == max(row.precision for row in everything(ranked) if row.recall >= least)


@given(ROWS)
@settings(max_examples=80, deadline=None)
def test_without_an_aim_it_is_the_highest_f1(rows):
    ranked = ranking(rows)
    found = operating_point(ranked, OperatingChoice())
    assert (found is None) == (not ranked.positives)
    if found is not None:
        assert found.f1 == max(row.f1 for row in everything(ranked))


def test_cheap_misses_flag_nothing_and_cheap_alarms_flag_every_image_of_the_class():
    ranked = count_thresholds(np.array([0.9, 0.6, 0.4, 0.2]), np.array([False, True, False, True]))
    nothing = operating_point(ranked, OperatingChoice(cost_fp=100, cost_fn=0.001))
    assert (nothing.threshold, nothing.flagged, math.isnan(nothing.precision)) == (math.inf, 0, True)
    assert operating_point(ranked, OperatingChoice(cost_fp=0.001, cost_fn=100)).recall == 1.0


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"cost_fp": 1.0}, "operating.cost_fn is not set"),
        ({"cost_fn": 1.0}, "operating.cost_fp is not set"),
        ({"min_recall": 0.9, "min_precision": 0.9}, "one aim, and 2 are set"),
        ({"min_precision": 90.0}, "operating.min_precision=90.0 is not above 0"),
        ({"min_recall": 0.0}, "operating.min_recall=0.0 is not above 0"),
        ({"cost_fp": -1.0, "cost_fn": 1.0}, "cannot be weighed"),
        ({"cost_fp": 0.0, "cost_fn": 0.0}, "cannot be weighed"),
        ({"cost_fp": math.inf, "cost_fn": 1.0}, "cannot be weighed"),
    ],
)
def test_aims_that_mean_nothing_are_refused_in_one_line(settings_, message):
    with pytest.raises(ConfigError, match=message) as caught:
        OperatingChoice(**settings_)
    assert "\n" not in str(caught.value)


def test_unknown_label_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'bees'"):
        OperatingChoice(label="bess").number(("ants", "bees"))
    assert OperatingChoice(label="bees").number(("ants", "bees")) == 1
    assert OperatingChoice().number(("ants", "bees")) is None
