"""Sections on classes, errors, confusion, ranking and reliability tell what the predictions hold and what they lack."""

import numpy as np
import pytest
from scored import predicted, run_data_of, scored

from finetune.evaluation.bootstrap import metrics_document
from finetune.evaluation.metrics import compute_metrics, per_class
from finetune.report.html.blocks import Figure, Section, Table, Text
from finetune.report.sections.classes_section import class_scores, classes_section, errors_section
from finetune.report.sections.confusion_section import confusion_section
from finetune.report.sections.ranking_section import gains_section, ranking_section
from finetune.report.sections.reliability_section import reliability_section

SECTIONS = (
    classes_section,
    errors_section,
    confusion_section,
    ranking_section,
    gains_section,
    reliability_section,
)


def exactly(targets, guesses, labels):
    """Predictions that say a class with 0.6."""
    size = len(labels)
    probabilities = np.full((len(targets), size), 0.4 / (size - 1))
    probabilities[np.arange(len(targets)), guesses] = 0.6
    return predicted(targets, probabilities, labels)


def part(section, kind):
    (found,) = (block for block in section.blocks if isinstance(block, kind))
    return found


def column(table, name):
    return [row[[column.name for column in table.columns].index(name)] for row in table.rows]


@pytest.mark.parametrize("make", SECTIONS)
def test_no_predictions_is_nothing_to_tell(make):
    assert make(run_data_of()) is None
    nobody = predicted(np.zeros(0, int), np.zeros((0, 3)))
    assert make(run_data_of(test=nobody)) is None


@pytest.mark.parametrize("make", SECTIONS)
@pytest.mark.parametrize(
    "predictions",
    [
        scored(1, 2),
        scored(40, 2),
        scored(40, 2, absent=(1,)),
        scored(40, 4, absent=(0, 2)),
        scored(40, 3, multilabel=True, absent=(1,)),
        predicted(np.zeros((5, 3), int), np.full((5, 3), 0.2)),
        predicted([0, 1, 2], np.eye(3)),
        scored(300, 60),
    ],
    ids=["one image", "binary", "no positive", "absent", "multilabel", "no label at all", "all right", "many"],
)
def test_every_kind_of_set_is_told_with_tables_that_fit(make, predictions):
    section = make(run_data_of(test=predictions))
    if section is None:
        assert make is gains_section
        return
    assert isinstance(section, Section)
    assert section.blocks
    for block in section.blocks:
        if isinstance(block, Table):
            assert {len(row) for row in block.rows} <= {len(block.columns)}
            assert not [cell for row in block.rows for cell in row if cell != cell]  # noqa: PLR0124 # no NaN
        if isinstance(block, Figure):
            assert block.description and "nan" not in block.description


def test_test_images_are_told_of_rather_than_validation():
    test, val = exactly([0, 0, 1], [0, 1, 1], ("ants", "bees")), exactly([0], [0], ("ants", "bees"))
    assert sum(column(part(classes_section(run_data_of(test=test, val=val)), Table), "images")) == 3
    alone = reliability_section(run_data_of(val=val))
    assert "validation split (1 image)" in alone.lead


def test_classes_come_worst_first_with_their_intervals_and_absent_ones_last():
    predictions = exactly([0, 0, 0, 0, 1, 1, 3, 3], [0, 0, 0, 1, 1, 0, 3, 3], ("ants", "bees", "wasps", "flies"))
    section = classes_section(run_data_of(test=predictions))
    table = part(section, Table)
    assert column(table, "class") == ["bees", "ants", "flies", "wasps"]
    assert column(table, "recall") == [0.5, 0.75, 1.0, None]
    assert column(table, "recall, 95 %")[2:] == ["0.158 to 1.000", None]
    assert part(section, Text).text == "1 class without an image in the test split cannot be judged: wasps."
    assert section.lead.startswith("The weakest class is bees: 0.500 of its 2 images are recognised (95 % interval")
    assert section.lead.endswith("; the strongest is flies with 1.000 of 2.")


def test_class_scores_are_read_where_they_are_stored_and_computed_where_they_are_not():
    predictions = scored(50, 3)
    document = metrics_document({"test": predictions}, resamples=30)
    assert class_scores(document, "test", predictions) is document["per_class"]["test"]
    older = {"per_class": {"test": per_class(predictions)}}
    for lacking in (older, {}):
        rows = class_scores(lacking, "test", predictions)
        assert [row["recall"] for row in rows] == [row["recall"] for row in per_class(predictions)]
        assert all(row["recall_low"] <= row["recall"] <= row["recall_high"] for row in rows)


def test_errors_are_listed_with_file_and_probability():
    predictions = predicted([0, 1, 1], [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], ("ants", "bees"))
    table = part(errors_section(run_data_of(test=predictions)), Table)
    assert table.rows == (("image1", "bees", "ants", pytest.approx(0.8), "photos/image1.jpg"),)
    right = part(errors_section(run_data_of(test=predicted([0, 1], np.eye(2)))), Text)
    assert (right.text, right.tone) == ("Every one of the 2 images of the test split is right.", "good")


def test_errors_of_several_labels_name_the_wrong_label():
    predictions = predicted([[0, 0]], [[0.9, 0.1]], ("ants", "bees"))
    table = part(errors_section(run_data_of(test=predictions)), Table)
    assert table.rows[0][:4] == ("image0", "none", "ants", "ants")


def test_confusion_names_the_worst_pair_and_where_errors_go():
    predictions = exactly([0] * 4 + [1] * 4 + [2] * 4, [0, 2, 2, 2, 1, 1, 2, 2, 2, 2, 2, 2], ("ants", "bees", "flies"))
    section = confusion_section(run_data_of(test=predictions))
    assert section.lead == (
        "What is taken for what. The most frequent error is ants taken for flies: 3 images, 75% of the class. "
        "Of all 5 errors, 5 were taken for flies."
    )
    assert part(section, Table).rows == (("ants", "flies", 3, 0.75, 0), ("bees", "flies", 2, 0.5, 0))


def test_decisions_on_labels_are_a_table_of_four_counts():
    predictions = predicted([[1, 0], [1, 1], [0, 0]], [[0.9, 0.8], [0.2, 0.7], [0.1, 0.3]], ("ants", "bees"))
    section = confusion_section(run_data_of(test=predictions))
    assert part(section, Table).rows == (("ants", 1, 0, 1, 1), ("bees", 1, 1, 0, 1))


def test_average_areas_are_the_scores():
    predictions = scored(90, 4)
    table = part(ranking_section(run_data_of(test=predictions)), Table)
    found = compute_metrics(predictions)
    assert table.rows[0][1:] == pytest.approx((found["roc_auc"], found["average_precision"]), abs=1e-6)


def test_gains_are_tabled_for_every_class():
    truth = np.arange(100) < 20
    predictions = predicted(
        truth.astype(int), np.stack([1 - (100 - np.arange(100)) / 100, (100 - np.arange(100)) / 100], 1)
    )
    table = part(gains_section(run_data_of(test=predictions)), Table)
    ((name, prevalence, *values),) = table.rows
    assert (name, prevalence) == ("class001", 0.2)
    assert values == pytest.approx([0.05, 0.25, 0.5, 1, 1, 5, 5, 5, 5, 2])
    assert len(part(gains_section(run_data_of(test=scored(400, 30))), Table).rows) == 30


@pytest.mark.parametrize(("scale", "word"), [(4.0, "too high"), (0.2, "too low")])
def test_reliability_says_which_way_probabilities_err(scale, word):
    predictions = scored(600, 4, scale=scale)
    section = reliability_section(run_data_of(test=predictions))
    assert word in section.lead
    assert f"off by {compute_metrics(predictions)['calibration_error']:.3f} on average" in section.lead
    assert sum(column(part(section, Table), "decisions")) == 600
