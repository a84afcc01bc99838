"""The section on groups says who is served worst, whether chance explains it, and what is too small to judge."""

import numpy as np
import pandas as pd
import pytest
from configured import settings_for
from scored import predicted, run_data_of, scored

from finetune.config.settings.run_groups import GroupSettings
from finetune.evaluation.fairness.group_metrics import groups_document
from finetune.report.html.blocks import Figure, Section, Table, Text
from finetune.report.html.render import render
from finetune.report.sections.fairness_section import fairness_section


def sites(sizes, accuracies):
    """Images of two classes in groups A, B …, of which a share is right."""
    names = np.repeat([chr(ord("A") + k) for k in range(len(sizes))], sizes).astype(object)
    targets = np.arange(len(names)) % 2
    wrong = np.concatenate([np.arange(n) >= round(n * share) for n, share in zip(sizes, accuracies, strict=True)])
    found = predicted(targets, np.where(np.eye(2)[targets ^ wrong] == 1, 0.8, 0.2))
    object.__setattr__(found, "groups", pd.DataFrame({"site": names}))
    return found


def told(predictions, **settings):
    document = {
        "groups": groups_document({"test": predictions}, settings_for(GroupSettings, **settings), resamples=200)
    }
    section = fairness_section(run_data_of(document, test=predictions))
    assert isinstance(section, Section)
    return section


def verdict(section):
    return next(block for block in section.blocks if isinstance(block, Text))


def test_nothing_is_told_without_group_columns_or_predictions():
    assert fairness_section(run_data_of()) is None
    assert fairness_section(run_data_of(test=scored(20, 2))) is None


def test_a_group_that_is_served_worse_stands_out():
    text = verdict(told(sites([100, 100], [0.95, 0.6])))
    assert text.tone == "warning"
    assert "the weakest group is B, accuracy 0.600 on 100 images" in text.text
    assert "expect the difference on new images too" in text.text


def test_a_difference_that_chance_makes_is_not_claimed():
    text = verdict(told(sites([60, 60], [0.9, 0.88])))
    assert text.tone == "plain"
    assert "no difference is shown, and none is ruled out" in text.text


def test_equal_accuracies_do_not_hide_unequal_classes():
    targets, groups = np.tile([0, 1], 100), np.repeat(["A", "B"], 100).astype(object)
    guesses = np.where(groups == "A", 0, 1)  # all of A is called the first class, all of B the second
    predictions = predicted(targets, np.where(np.eye(2)[guesses] == 1, 0.8, 0.2), ["no", "yes"])
    object.__setattr__(predictions, "groups", pd.DataFrame({"site": groups}))
    text = verdict(told(predictions))
    assert text.tone == "warning"
    assert "no is treated most unequally" in text.text and "differ by 1.000 between B and A" in text.text


def test_groups_too_small_are_listed_last_and_said_to_be():
    section = told(sites([60, 60, 9], [0.9, 0.8, 0.1]))
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert [row[:3] for row in table.rows] == [("B", 60, "yes"), ("A", 60, "yes"), ("C", 9, "too small")]
    figure = next(block for block in section.blocks if isinstance(block, Figure))
    assert "C 0.11 (too small to judge)" in figure.description
    assert "too small to judge" in verdict(told(sites([60, 9], [0.9, 0.1]))).text


def test_a_column_of_many_groups_is_cut_short_and_says_so():
    section = told(sites([10] * 25, np.linspace(0.1, 1, 25)), min_images=5)
    texts = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    assert "site has 25 groups" in texts
    assert [len(block.rows) for block in section.blocks if isinstance(block, Table)] == [10]


@pytest.mark.parametrize("labels", [2, 40])
@pytest.mark.parametrize("multilabel", [False, True])
def test_every_kind_of_set_becomes_a_page_with_tables_that_fit(labels, multilabel):
    predictions = scored(300, labels, multilabel=multilabel)
    columns = {"site": np.resize(["A", "B", None], 300), "sex": np.resize(list("fm"), 300)}
    object.__setattr__(predictions, "groups", pd.DataFrame(columns))
    section = told(predictions, min_images=3, intersections=(("site", "sex"),))
    for table in section.blocks:
        if isinstance(table, Table):
            assert {len(row) for row in table.rows} == {len(table.columns)}
    assert "site x sex" in render("Run", [section])


def test_a_run_older_than_the_section_is_told_of_from_its_predictions():
    section = fairness_section(run_data_of(test=sites([60, 60], [0.9, 0.5])))
    assert section is not None
    assert "the weakest group is B" in verdict(section).text
