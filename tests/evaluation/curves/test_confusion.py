"""Errors are counted as scikit-learn counts them, and the worst are named first."""

import numpy as np
import pytest
from scored import predicted, scored
from sklearn import metrics

from finetune.evaluation.curves.confusion import confident_errors, confusion_matrix, label_counts, most_confused


def exactly(targets, guesses, size=3):
    """Predictions that say a class with 0.6."""
    probabilities = np.full((len(targets), size), 0.4 / (size - 1))
    probabilities[np.arange(len(targets)), guesses] = 0.6
    return predicted(targets, probabilities)


@pytest.mark.parametrize("size", [2, 5, 40])
def test_matrix_equals_scikit_learns_and_its_rows_sum_to_one(size):
    predictions = scored(200, size, absent=(0,))
    matrix = confusion_matrix(predictions)
    arguments = {"labels": range(size)}
    expected = metrics.confusion_matrix(predictions.targets, predictions.predicted, **arguments)
    np.testing.assert_array_equal(matrix.counts, expected)
    filled = matrix.support > 0
    expected = metrics.confusion_matrix(predictions.targets, predictions.predicted, **arguments, normalize="true")
    np.testing.assert_allclose(matrix.shares[filled], expected[filled])
    assert np.isnan(matrix.shares[~filled]).all()
    assert (~filled).any()


def test_matrix_of_each_label_equals_scikit_learns():
    predictions = scored(120, 5, multilabel=True, absent=(3,))
    expected = metrics.multilabel_confusion_matrix(predictions.targets, predictions.predicted)
    found = [[[row.rest, row.alarms], [row.misses, row.hits]] for row in label_counts(predictions)]
    assert found == expected.tolist()


def test_most_confused_pairs_come_first_with_both_directions():
    predictions = exactly([0] * 5 + [1] * 10 + [2] * 4, [0, 0, 0, 1, 1] + [1] * 7 + [0, 2, 2] + [2, 2, 2, 1])
    pairs = most_confused(confusion_matrix(predictions))
    found = [(pair.true[-1], pair.predicted[-1], pair.count, pair.share, pair.reverse) for pair in pairs]
    assert found == [("0", "1", 2, 0.4, 1), ("1", "2", 2, 0.2, 1), ("2", "1", 1, 0.25, 2), ("1", "0", 1, 0.1, 2)]
    assert most_confused(confusion_matrix(predictions), limit=1) == pairs[:1]
    assert most_confused(confusion_matrix(exactly([0, 1], [0, 1]))) == []


def test_errors_made_most_surely_come_first():
    predictions = predicted([0, 1, 2, 0], [[0.1, 0.9, 0], [0.2, 0.8, 0], [0.05, 0.95, 0], [0.3, 0.3, 0.4]])
    errors = confident_errors(predictions)
    assert [error.id for error in errors] == ["image2", "image0", "image3"]
    first = errors[0]
    assert (first.path, first.true, first.predicted, first.label) == (
        *("photos/image2.jpg", "class002", "class001", "class001"),
    )
    assert first.probability == pytest.approx(0.95)
    assert confident_errors(predictions, limit=2) == errors[:2]


def test_errors_of_several_labels_are_single_decisions():
    predictions = predicted([[1, 0], [0, 0], [1, 1]], [[0.01, 0.2], [0.3, 0.9], [0.8, 0.4]])
    found = [(error.id, error.label, error.true, error.predicted) for error in confident_errors(predictions)]
    assert found == [
        ("image0", "class000", "class000", ""),
        ("image1", "class001", "", "class001"),
        ("image2", "class001", "class000|class001", "class000"),
    ]
    probabilities = [error.probability for error in confident_errors(predictions)]
    assert probabilities == pytest.approx([0.99, 0.9, 0.6], abs=1e-6)
