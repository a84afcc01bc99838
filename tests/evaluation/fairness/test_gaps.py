"""Gaps are those of fairlearn, and their intervals those of Newcombe."""

import math

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equalized_odds_difference,
)
from scored import scored
from sklearn.metrics import accuracy_score
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from finetune.evaluation.fairness.gaps import GroupValue, difference_of, find_gap, ratio_of
from finetune.evaluation.fairness.rates import class_gaps

SITES = np.array(["A", "B", "C"], dtype=object)


def with_sites(predictions, seed=0):
    """Predictions with a column of three uneven groups, and the column."""
    sites = np.random.default_rng(seed).choice(SITES, predictions.num, p=[0.5, 0.3, 0.2])
    object.__setattr__(predictions, "groups", pd.DataFrame({"site": sites}))
    return predictions, sites


def parts_of(predictions, sites):
    return {name: predictions.take(np.flatnonzero(sites == name)) for name in SITES}


@pytest.mark.parametrize(
    "predictions", [scored(300, 2), scored(300, 4), scored(300, 3, multilabel=True)], ids=["binary", "multi", "labels"]
)
def test_class_gaps_are_those_of_fairlearn(predictions):
    predictions, sites = with_sites(predictions)
    for k, found in enumerate(class_gaps(parts_of(predictions, sites), 1)):
        truth, called = (
            (values[:, k] if predictions.multilabel else values == k).astype(int)
            for values in (predictions.targets, predictions.predicted)
        )
        given = {"y_true": truth, "y_pred": called, "sensitive_features": sites}
        assert found.equal_opportunity.difference.value == pytest.approx(equal_opportunity_difference(**given))
        assert found.equalised_odds.difference.value == pytest.approx(equalized_odds_difference(**given))
        assert found.demographic_parity.difference.value == pytest.approx(demographic_parity_difference(**given))
        assert found.demographic_parity.ratio.value == pytest.approx(demographic_parity_ratio(**given))


def test_a_gap_is_the_difference_and_ratio_of_fairlearns_metric_frame():
    predictions, sites = with_sites(scored(200, 3))
    truth, called = predictions.targets, predictions.predicted
    frame = MetricFrame(metrics=accuracy_score, y_true=truth, y_pred=called, sensitive_features=sites)
    gap = find_gap({name: GroupValue(accuracy_score(truth[sites == name], called[sites == name])) for name in SITES})
    assert gap.difference.value == pytest.approx(frame.difference())
    assert gap.ratio.value == pytest.approx(frame.ratio())
    assert (gap.lowest, gap.highest) == (frame.by_group.idxmin(), frame.by_group.idxmax())


@pytest.mark.parametrize(("hits", "nums"), [((45, 30), (50, 60)), ((50, 20), (50, 40)), ((7, 0), (9, 12))])
def test_the_interval_of_a_difference_is_newcombes(hits, nums):
    """His is made of Wilson's intervals."""
    ends = [proportion_confint(h, n, method="wilson") for h, n in zip(hits, nums, strict=True)]
    first, second = (GroupValue(h / n, *end) for h, n, end in zip(hits, nums, ends, strict=True))
    found = difference_of(first, second)
    expected = confint_proportions_2indep(hits[0], nums[0], hits[1], nums[1], method="newcomb")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)


def test_the_interval_of_a_ratio_covers_what_it_should():
    generator, inside = np.random.default_rng(0), 0
    for low, high in zip(generator.binomial(200, 0.6, 400), generator.binomial(300, 0.8, 400), strict=True):
        ends = [proportion_confint(h, n, method="wilson") for h, n in ((low, 200), (high, 300))]
        found = ratio_of(GroupValue(low / 200, *ends[0]), GroupValue(high / 300, *ends[1]))
        inside += found.low <= 0.75 <= found.high
    assert 0.92 <= inside / 400 <= 0.98


def test_a_ratio_to_a_known_number_is_the_interval_divided_by_it():
    found = ratio_of(GroupValue(0.5, 0.4, 0.6), GroupValue(0.8, 0.8, 0.8))
    assert (found.value, found.low, found.high) == pytest.approx((0.625, 0.5, 0.75))


def test_what_is_not_known_is_not_invented():
    unknown = difference_of(GroupValue(0.9), GroupValue(0.5, 0.4, 0.6))
    assert unknown.value == pytest.approx(0.4)
    assert math.isnan(unknown.low) and math.isnan(unknown.high)
    assert math.isnan(ratio_of(GroupValue(0.0, 0.0, 0.1), GroupValue(0.0, 0.0, 0.1)).value)
    assert find_gap({"A": GroupValue(0.5), "B": GroupValue(math.nan)}) is None


def test_rates_of_too_few_images_are_in_no_gap():
    predictions, sites = with_sites(scored(200, 2))
    parts = parts_of(predictions, sites)
    of_class = {name: int((part.targets == 0).sum()) for name, part in parts.items()}
    least = sorted(of_class.values())[1]
    gap = class_gaps(parts, least)[0].equal_opportunity
    assert {gap.lowest, gap.highest} == {name for name, number in of_class.items() if number >= least}
    assert class_gaps(parts, 1000)[0].equal_opportunity is None
