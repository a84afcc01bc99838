"""The bins of the diagram are those of the calibration error, and their means scikit-learn's."""

import numpy as np
import pytest
from scored import predicted, scored
from sklearn.calibration import calibration_curve

from finetune.evaluation.curves.reliability import reliability_bins
from finetune.evaluation.metrics import compute_metrics, judged_decisions


@pytest.mark.parametrize(
    "case",
    [{"num_labels": 2}, {"num_labels": 8, "scale": 40.0}, {"num_labels": 4, "multilabel": True}],
)
def test_error_of_the_bins_is_the_calibration_error(case):
    predictions = scored(300, seed=1, **case)
    found = reliability_bins(predictions)
    assert found.error == pytest.approx(compute_metrics(predictions)["calibration_error"], abs=1e-6)
    assert found.counts.sum() == 300 * (4 if predictions.multilabel else 1)
    assert (found.counts[-1] > 0) == ("scale" in case)  # only these have probabilities of 1


@pytest.mark.parametrize("multilabel", [False, True])
def test_means_of_the_bins_equal_scikit_learns(multilabel):
    predictions = scored(400, 4, seed=2, multilabel=multilabel)
    confidence, right = judged_decisions(predictions)
    found = reliability_bins(predictions)
    filled = found.counts > 0
    expected = calibration_curve(right.ravel(), confidence.ravel(), n_bins=15)
    np.testing.assert_allclose(found.rightness[filled], expected[0])
    np.testing.assert_allclose(found.confidence[filled], expected[1])


def test_being_too_sure_is_told_from_being_too_unsure():
    assert reliability_bins(scored(2000, 5, scale=3.0)).overconfidence > 0.05
    assert reliability_bins(scored(2000, 5, scale=0.3)).overconfidence < -0.05
    assert abs(reliability_bins(scored(20_000, 5, sure=1.5, scale=1.5)).overconfidence) < 0.02


def test_empty_bins_have_no_means():
    found = reliability_bins(predicted([0], [[0.7, 0.3]]))
    assert found.counts.tolist() == [0] * 10 + [1] + [0] * 5
    assert np.isnan(found.confidence).sum() == np.isnan(found.rightness).sum() == 15
