"""Each group has the scores of its images alone; small ones are flagged, and chance is told from a difference."""

import json

import numpy as np
import pandas as pd
import pytest
from configured import settings_for
from scipy.stats import kstest, permutation_test
from scored import predicted, scored

from finetune.config.settings.run_groups import GroupSettings
from finetune.data.groups import group_names
from finetune.errors import ConfigError
from finetune.evaluation.bootstrap import bootstrap
from finetune.evaluation.fairness.group_metrics import groups_document, weakest_group, weakest_line
from finetune.evaluation.fairness.partition import check_group_columns, partitions
from finetune.evaluation.fairness.permutation_test import permutation_p_value
from finetune.evaluation.metrics import compute_metrics


def grouped(predictions, **columns):
    object.__setattr__(predictions, "groups", pd.DataFrame(columns))
    return predictions


def uneven(sizes, wrong, **columns):
    """Images of groups A, B …, of which as many are wrong."""
    names = np.repeat([chr(ord("A") + k) for k in range(len(sizes))], sizes).astype(object)
    targets = np.arange(sum(sizes)) % 2
    guesses = targets.copy()
    for start, number in zip(np.cumsum([0, *sizes[:-1]]), wrong, strict=True):
        guesses[start : start + number] ^= 1
    probabilities = np.where(np.eye(2)[guesses] == 1, 0.8, 0.2)
    return grouped(predicted(targets, probabilities), site=names, **columns)


def described(predictions, **settings):
    (column,) = groups_document({"test": predictions}, settings_for(GroupSettings, **settings), resamples=200)[
        "test"
    ].values()
    return column


def test_a_groups_scores_are_those_of_its_images_alone():
    predictions = grouped(scored(160, 3), site=np.tile(["A", "B"], 80))
    found = described(predictions)
    for name, start in (("A", 0), ("B", 1)):
        own = predictions.take(np.arange(start, 160, 2))
        assert found["groups"][name]["n"] == 80
        for key, value in compute_metrics(own).items():
            assert found["groups"][name][key]["value"] == pytest.approx(value)
        assert found["groups"][name]["accuracy"]["low"] <= compute_metrics(own)["accuracy"]
    spread = [b - a for a, b in bootstrap(own, 200, 5).values()]
    given = [found["groups"]["B"][key]["high"] - found["groups"]["B"][key]["low"] for key in compute_metrics(own)]
    assert given == pytest.approx(spread, rel=0.35)


def test_groups_too_small_are_scored_but_in_no_gap_and_never_the_weakest():
    found = described(uneven([60, 60, 29], [6, 12, 20]), min_images=30)
    assert found["groups"]["C"]["judged"] is False
    assert found["groups"]["C"]["accuracy"]["value"] == pytest.approx(9 / 29)
    assert (found["weakest"], found["num_small"]) == ("B", 1)
    gap = found["gaps"]["accuracy"]
    assert (gap["lowest"], gap["highest"], gap["difference"]["value"]) == ("B", "A", pytest.approx(0.1))
    assert gap["ratio"]["value"] == pytest.approx(0.8 / 0.9)
    assert found["classes"]["class000"]["equalised_odds"]["lowest"] in "AB"


def test_missing_values_are_a_group_of_their_own():
    values = pd.Series([1.0, None, 2.5, float("nan")])
    assert group_names(values).tolist() == ["1", "missing", "2.5", "missing"]
    found = partitions(grouped(scored(4, 2), site=["A", None, "A", None]), settings_for(GroupSettings))[0]
    assert {name: rows.tolist() for name, rows in found.groups.items()} == {"A": [0, 2], "missing": [1, 3]}


def test_two_columns_are_crossed():
    predictions = grouped(scored(8, 2), site=list("AABBAABB"), sex=list("fmfmfmfm"))
    found = partitions(predictions, settings_for(GroupSettings, columns=("sex",), intersections=(("site", "sex"),)))
    assert [part.column for part in found] == ["sex", "site x sex"]
    assert {name: rows.tolist() for name, rows in found[1].groups.items()} == {
        "A x f": [0, 4], "A x m": [1, 5], "B x f": [2, 6], "B x m": [3, 7],
    }  # fmt: skip


def test_a_column_of_many_groups_keeps_its_ends_and_tells_of_no_gap():
    found = described(uneven([10] * 25, [k % 10 for k in range(25)]), min_images=5)
    values = [found["groups"][name]["accuracy"]["value"] for name in found["groups"]]
    assert (found["num_groups"], len(values)) == (25, 10)
    assert values == sorted(values) and values[0] == pytest.approx(0.1) and values[-1] == 1.0
    assert (found["gaps"], found["classes"]) == ({}, {})


@pytest.mark.parametrize("predictions", [scored(90, 2), scored(90, 7), scored(90, 3, multilabel=True), scored(1, 3)])
def test_the_document_is_plain_json(predictions):
    predictions = grouped(predictions, site=np.resize(["A", "B", None], predictions.num).tolist())
    document = groups_document({"test": predictions}, settings_for(GroupSettings), resamples=20)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_without_columns_there_is_nothing():
    assert groups_document({"test": scored(20, 2)}, settings_for(GroupSettings)) == {"test": {}}
    assert weakest_line({}) == ""


def test_the_weakest_group_of_all_columns_is_named_in_a_line():
    sexes = np.tile(["f", "m"], 62)
    columns = groups_document(
        {"test": uneven([60, 64], [3, 12], sex=sexes)}, settings_for(GroupSettings), resamples=50
    )["test"]
    assert weakest_line(columns) == "group site=B: accuracy 0.8125 on 64 images"


def test_a_single_group_is_not_the_weakest():
    columns = groups_document({"test": uneven([60, 5], [30, 0])}, settings_for(GroupSettings), resamples=20)["test"]
    assert weakest_group(columns) is None
    assert columns["site"]["chance"] is None and columns["site"]["gaps"] == {}


def test_chance_agrees_with_scipys_permutation_test():
    generator = np.random.default_rng(1)
    values = (generator.random(90) < np.repeat([0.85, 0.7, 0.6], 30)).astype(float)
    groups = np.repeat([0, 1, 2], 30)

    def spread(*parts):
        return sum(len(part) * (part.mean() - values.mean()) ** 2 for part in parts)

    expected = permutation_test(
        [values[groups == k] for k in range(3)], spread, permutation_type="independent", alternative="greater",
        n_resamples=3000, rng=np.random.default_rng(2),
    )  # fmt: skip
    found = permutation_p_value(values, groups, draws=3000, seed=0)
    assert found == pytest.approx(expected.pvalue, abs=4 * np.sqrt(2 * found * (1 - found) / 3000))


def test_groups_without_a_difference_give_chances_that_are_uniform():
    generator = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 40)
    found = [permutation_p_value(generator.normal(size=120), groups, draws=99, seed=k) for k in range(200)]
    assert kstest(found, "uniform").pvalue > 0.01


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    settings = settings_for(GroupSettings, columns=["sute"])
    with pytest.raises(ConfigError, match="groups.columns names 'sute'.*There are: site, sex"):
        check_group_columns(settings, ["site", "sex"])
    with pytest.raises(ConfigError, match=r"no group columns.*data.group_columns=\[sute\]"):
        check_group_columns(settings, [])
    settings = settings_for(GroupSettings, intersections=[["site", "sxe"]])
    with pytest.raises(ConfigError, match="groups.intersections names 'sxe'"):
        check_group_columns(settings, ["site", "sex"])
    with pytest.raises(ConfigError, match="pairs of columns"):
        check_group_columns(settings_for(GroupSettings, intersections=["site"]), ["site", "sex"])
