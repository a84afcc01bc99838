"""Out-of-fold predictions are means over the folds that held an image out, and intervals know that folds overlap."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from finetune.errors import RunError
from finetune.evaluation.fold_scores import corrected_interval, fold_document, out_of_fold
from finetune.evaluation.predictions import Predictions


def predictions(ids: list[str], column: list[float], labels: tuple[str, ...] = ("a", "b")) -> Predictions:
    p = np.array(column)
    names = np.array(ids, object)
    sites = pd.DataFrame({"site": [f"site of {name}" for name in ids]})
    return Predictions(names, names, np.arange(len(ids)) % 2, np.stack([1 - p, p], 1), labels, "multiclass", sites)


def test_an_image_that_several_folds_held_out_has_the_mean_of_what_they_say() -> None:
    first, second = predictions(["x", "y"], [0.2, 0.9]), predictions(["z", "y"], [0.4, 0.5])
    found = out_of_fold([first, second], ["never", "z", "y", "x"])
    assert found.ids.tolist() == ["z", "y", "x"]
    assert np.allclose(found.probabilities[:, 1], [0.4, 0.7, 0.2])
    assert found.groups["site"].tolist() == ["site of z", "site of y", "site of x"]
    assert found.targets.tolist() == [0, 1, 0]
    with pytest.raises(RunError, match="same labels"):
        out_of_fold([first, predictions(["z"], [0.5], ("a", "c"))], ["x", "y", "z"])


def test_the_interval_is_wider_by_the_share_that_is_held_out() -> None:
    values = [0.9, 0.8, 0.85, 0.95, 0.9]
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    naive = stats.t.interval(0.95, 4, loc=mean, scale=deviation / math.sqrt(5))
    assert corrected_interval(values, 0.0) == pytest.approx(naive)
    low, high = corrected_interval(values, 0.25)  # 5 folds: 1 part held out by 4 learnt from
    assert high - mean == pytest.approx((naive[1] - mean) * math.sqrt((0.2 + 0.25) / 0.2))
    assert mean - low == pytest.approx(high - mean)
    assert all(math.isnan(end) for end in corrected_interval([0.9, 0.9, 0.9], 0.5))


def test_the_document_holds_each_folds_scores_and_none_of_single_images() -> None:
    folds = [predictions(["a", "b", "c", "d"], column) for column in ([0.1, 0.9, 0.1, 0.9], [0.1, 0.9, 0.9, 0.1])]
    found = fold_document(folds, [4, 4], independent=True)
    assert found["metrics"]["accuracy"]["values"] == [1.0, 0.5]
    assert found["metrics"]["accuracy"]["mean"] == 0.75
    assert found["metrics"]["accuracy"]["spread"] == pytest.approx(np.std([1.0, 0.5], ddof=1))
    assert (found["metrics"]["accuracy"]["low"], found["metrics"]["accuracy"]["high"]) == (0.0, 1.0)  # within its range
    assert found["metrics"]["loss"]["low"] < 0 or found["metrics"]["loss"]["high"] > 1
    overlapping = fold_document(folds, [4, 4], independent=False)
    assert math.isnan(overlapping["metrics"]["accuracy"]["low"])
    single = fold_document([predictions(["a"], [0.1]), predictions(["b"], [0.9])], [3, 3], independent=True)
    assert single["metrics"] == {} and single["folds"] == 2
