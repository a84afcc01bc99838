"""Figures say in words and lines what was measured, name few classes, and stay small at many."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from scored import predicted, scored

from finetune.evaluation.curves.averages import precision_recall_curves, roc_curves
from finetune.evaluation.curves.confusion import confusion_matrix
from finetune.evaluation.curves.gains import cumulative_gains
from finetune.evaluation.curves.operating_points import OperatingChoice, operating_point
from finetune.evaluation.curves.reliability import reliability_bins
from finetune.evaluation.curves.threshold_counts import count_class, count_classes, count_pairs, reported_classes
from finetune.report.figures.classes_figure import recall_figure
from finetune.report.figures.confusion_figure import colours, confusion_figure, named_classes
from finetune.report.figures.intervals_figure import IntervalPoint
from finetune.report.figures.lines_figure import gains_figure, lift_figure, precision_recall_figure, roc_figure
from finetune.report.figures.reliability_figure import reliability_figure
from finetune.report.figures.short_names import outstanding, shorten
from finetune.report.figures.thresholds_figure import held, threshold_figure


def words(figure):
    """Every text of a figure's drawing."""
    root = ElementTree.fromstring(figure.svg)
    return [("".join(node.itertext())).strip() for node in root.iter() if node.tag.endswith("text")]


def curves(predictions):
    classes, decisions = count_classes(predictions), count_pairs(predictions)
    return roc_curves(classes, decisions), precision_recall_curves(classes, decisions)


def test_small_matrix_has_each_number_and_its_share():
    predictions = predicted([0, 0, 0, 0, 1, 1], np.eye(2)[[0, 0, 0, 1, 1, 1]], labels=("ants", "bees"))
    found = words(confusion_figure(confusion_matrix(predictions)))
    assert {"ants", "bees", "3", "75%", "1", "25%", "2", "100%", "true", "predicted"} <= set(found)
    figure = confusion_figure(confusion_matrix(predictions))
    assert figure.description == "5 images are right. Most frequent errors: ants as bees: 1."


@pytest.mark.parametrize(("size", "numbers", "names"), [(12, True, 24), (35, False, 70)])
def test_larger_matrices_drop_shares_then_numbers_and_keep_names(size, numbers, names):
    figure = confusion_figure(confusion_matrix(scored(2000, size, sure=3.0)))
    found = words(figure)
    assert sum(text.startswith("class") for text in found) == names
    assert any(text.isdigit() for text in found) == numbers
    assert not any("%" in text for text in found)


def test_matrix_of_two_hundred_classes_names_only_the_worst_and_stays_small():
    targets = np.repeat(np.arange(200), 20)
    guesses = targets.copy()
    guesses[targets == 57] = 120  # one class is always taken for another
    figure = confusion_figure(confusion_matrix(predicted(targets, np.eye(200)[guesses])))
    assert [text for text in words(figure) if text.startswith("class")] == ["class120", "class057"]
    assert len(figure.svg) < 100_000
    assert "Only the classes with the most errors are named" in figure.caption


def test_colour_is_the_share_of_the_row_and_says_right_from_wrong():
    matrix = confusion_matrix(predicted([0, 0, 1, 1], np.eye(3)[[0, 0, 1, 0]]))
    picture = colours(matrix)
    assert picture[0, 0, 3] > picture[1, 1, 3] > 0
    assert picture[1, 0, 3] > 0
    assert (picture[2, :, 3] == 0).all()  # no image
    assert picture[0, 1, 3] == 0
    assert (picture[0, 0, :3] == picture[1, 1, :3]).all()
    assert (picture[0, 0, :3] != picture[1, 0, :3]).any()


def test_names_beside_a_large_matrix_do_not_touch_and_the_worst_are_there():
    errors = np.random.default_rng(0).integers(0, 50, 200)
    errors[77] = 99
    named = named_classes(errors, pixels=2.3)
    assert 77 in named
    assert min(np.diff(named)) * 2.3 >= 11
    assert named_classes(np.zeros(200), pixels=2.3) == []


@pytest.mark.parametrize("make", [0, 1])
def test_curves_of_many_classes_name_the_worst_and_the_best_with_their_areas(make):
    predictions = scored(3000, 60, sure=3.0)
    kind = curves(predictions)[make]
    figure = (roc_figure, precision_recall_figure)[make](kind, predictions.labels, reported_classes(predictions))
    legend = [text for text in words(figure) if text.startswith("class")]
    order = np.argsort(kind.areas, kind="stable")
    expected = [f"class{number:03} ({kind.areas[number]:.3f})" for number in [*order[:5], *order[-2:]]]
    assert legend == expected
    assert {f"macro average ({kind.macro.area:.3f})", f"micro average ({kind.micro.area:.3f})"} <= set(words(figure))
    assert all(name in figure.description for name in expected)
    assert len(figure.svg) < 80_000


def test_lines_of_twenty_thousand_images_have_about_two_hundred_points():
    predictions = scored(20_000, 2, sure=0.7)
    kinds = curves(predictions)
    found = {"positive": cumulative_gains(count_class(predictions, 1))}
    figures = [
        roc_figure(kinds[0], predictions.labels, (1,)),
        precision_recall_figure(kinds[1], predictions.labels, (1,)),
        gains_figure(found),
        lift_figure(found),
        threshold_figure(count_class(predictions, 1), None, "bees"),
    ]
    for figure in figures:
        assert max(len(re.findall("[ML]", path)) for path in re.findall(r' d="([^"]*)"', figure.svg)) <= 205


def test_two_classes_are_drawn_as_one_line_beside_the_best_possible():
    predictions = scored(60, 2)
    figure = roc_figure(curves(predictions)[0], predictions.labels, reported_classes(predictions))
    assert "class000" not in figure.svg
    assert "average" not in figure.svg
    found = gains_figure({"class001": cumulative_gains(count_class(predictions, 1))})
    assert {"class001", "best possible", "by chance"} <= set(words(found))
    two = {name: cumulative_gains(count_class(predictions, number)) for number, name in enumerate(predictions.labels)}
    assert "best possible" not in words(lift_figure(two))


def test_classes_without_a_curve_are_not_drawn():
    predictions = scored(80, 4, absent=(2,))
    for kind, make in zip(curves(predictions), (roc_figure, precision_recall_figure), strict=True):
        assert "class002" not in make(kind, predictions.labels, reported_classes(predictions)).svg


def test_reliability_says_each_bin_in_words():
    figure = reliability_figure(reliability_bins(predicted([0, 1, 1], [[0.7, 0.3], [0.7, 0.3], [0.1, 0.9]])))
    assert figure.description == (
        "Probability and how often it came true: 0.70 given, 0.50 came true (2); 0.90 given, 1.00 came true (1)."
    )


def test_lines_over_thresholds_hold_between_them():
    x, y = held(np.array([0.8, 0.3]), np.array([0.25, 1.0]))
    assert (x.tolist(), y.tolist()) == ([0, 0.3, 0.3, 0.8], [1, 1, 0.25, 0.25])


def test_chosen_threshold_is_marked():
    ranked = count_class(scored(100, 2), 1)
    chosen = operating_point(ranked, OperatingChoice(min_recall=0.9))
    assert f"{chosen.threshold:g}" in words(threshold_figure(ranked, chosen, "bees"))
    nothing = operating_point(ranked, OperatingChoice(cost_fp=1, cost_fn=0))
    assert "inf" not in words(threshold_figure(ranked, nothing, "bees"))


def test_recall_figure_shows_the_weakest_classes_first():
    bars = [IntervalPoint(f"class{k}", 10 + k, k / 40, None if k == 3 else k / 50, 1.0) for k in range(40)]
    figure = recall_figure(bars[::-1], 0.5)
    assert figure.title == "The 20 classes with the lowest recall"
    assert [text for text in words(figure) if text.startswith("class")] == [f"class{k} ({10 + k})" for k in range(20)]
    assert recall_figure(bars[:3], 0.5).title == "Recall of each class"


def test_outstanding_are_all_of_few_and_never_one_without_a_value():
    assert outstanding(np.array([0.5, np.nan, 0.2]), (0, 1, 2)) == [0, 2]
    assert outstanding(np.arange(20) / 20, range(20)) == [0, 1, 2, 3, 4, 18, 19]
    assert outstanding(np.arange(20) / 20, (7,)) == [7]


def test_long_names_keep_beginning_and_end():
    name = "Lepidoptera Nymphalidae Vanessa atalanta (adult)"
    assert shorten("ants") == "ants"
    assert len(shorten(name)) == 26
    assert shorten(name).startswith("Lepidoptera") and shorten(name).endswith("(adult)")
