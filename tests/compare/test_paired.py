"""Differences of two runs over the same images: aligned by id, resampled together, refused where the images differ."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from finetune.compare.contest import mean_difference
from finetune.compare.paired import OtherImagesError, align, compare_pair, correct
from finetune.errors import DataError
from finetune.evaluation.predictions import Predictions
from finetune.evaluation.scores import score

LABELS = ("a", "b", "c")
NAMES = ("first", "second")


def predictions(right: np.ndarray, *, labels: tuple[str, ...] = LABELS, ids: list[str] | None = None) -> Predictions:
    """Return predictions that are right where it is said."""
    number = len(right)
    targets = np.arange(number) % len(labels)
    decided = np.where(right, targets, (targets + 1) % len(labels))
    probabilities = np.full((number, len(labels)), 0.2 / (len(labels) - 1))
    probabilities[np.arange(number), decided] = 0.8
    names = np.array(ids or [f"{row}.jpg" for row in range(number)], object)
    groups = pd.DataFrame({"site": np.where(np.arange(number) % 2, "x", "y")})
    return Predictions(names, names, targets, probabilities, labels, "multiclass", groups)


def random_pair(number: int = 400, seed: int = 0) -> tuple[Predictions, Predictions]:
    generator = np.random.default_rng(seed)
    hard = generator.random(number) < 0.3
    first = np.where(hard, generator.random(number) < 0.3, generator.random(number) < 0.95)
    second = np.where(generator.random(number) < 0.1, ~first, first)
    return predictions(first), predictions(second)


def test_a_run_against_itself_differs_in_nothing() -> None:
    first, _ = random_pair()
    for change in compare_pair(first, first, resamples=50).metrics.values():
        assert (change.value, change.low, change.high) == (0, 0, 0)
        assert not change.decided


def test_the_interval_of_accuracy_is_that_of_paired_differences() -> None:
    first, second = random_pair()
    change = compare_pair(first, second, resamples=4000).metrics["accuracy"]
    paired = correct(second).astype(float) - correct(first)
    half = norm.ppf(0.975) * paired.std(ddof=1) / np.sqrt(len(paired))
    assert change.value == pytest.approx(paired.mean(), abs=1e-6)
    assert change.low == pytest.approx(paired.mean() - half, abs=0.006)
    assert change.high == pytest.approx(paired.mean() + half, abs=0.006)
    alone = [float(correct(each).std(ddof=1)) for each in (first, second)]
    unpaired = norm.ppf(0.975) * np.hypot(*alone) / np.sqrt(len(paired))
    assert change.high - change.low < 2 * unpaired * 0.8, "what is hard for both cancels"
    again = mean_difference(correct(first).astype(float), correct(second).astype(float), 4000, 0)
    assert (again.low, again.high) == pytest.approx((change.low, change.high), abs=1e-6)


def test_every_metric_is_the_difference_of_its_values() -> None:
    first, second = random_pair()
    found = compare_pair(first, second, resamples=0).metrics
    values = score(first), score(second)
    assert {name: change.value for name, change in found.items()} == pytest.approx(
        {name: values[1][name] - values[0][name] for name in values[0]}
    )
    assert all(np.isnan(change.low) for change in found.values())


def test_images_and_labels_are_brought_into_the_same_order() -> None:
    first, _ = random_pair(30)
    order = np.random.default_rng(1).permutation(30)
    columns = [2, 0, 1]
    labels = tuple(LABELS[column] for column in columns)
    shuffled = Predictions(
        first.ids[order], first.paths[order], np.array([labels.index(LABELS[t]) for t in first.targets[order]]),
        first.probabilities[order][:, columns], labels, "multiclass", first.groups.iloc[order],
    )  # fmt: skip
    one, other = align(first, shuffled, NAMES, common=False)
    assert one.ids.tolist() == other.ids.tolist() == first.ids.tolist()
    assert np.array_equal(one.probabilities, other.probabilities)
    assert np.array_equal(one.targets, other.targets)
    assert one.groups.equals(other.groups)


def test_other_images_are_refused_and_named_unless_those_in_common_are_asked_for() -> None:
    first = predictions(np.ones(6, bool))
    second = predictions(np.ones(6, bool), ids=["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "new.jpg"])
    with pytest.raises(
        OtherImagesError, match=r"1 are in first alone \(first: 5.jpg\).*new.jpg.*5 are in both.*common="
    ):
        align(first, second, NAMES, common=False)
    one, other = align(first, second, NAMES, common=True)
    assert one.ids.tolist() == other.ids.tolist() == [f"{row}.jpg" for row in range(5)]
    apart = predictions(np.ones(2, bool), ids=["x", "y"])
    with pytest.raises(OtherImagesError, match="0 are in both"):
        align(first, apart, NAMES, common=True)


def test_other_labels_of_the_same_images_are_refused() -> None:
    first = predictions(np.ones(6, bool))
    changed = predictions(np.ones(6, bool))
    changed.targets[2] = (changed.targets[2] + 1) % 3
    with pytest.raises(
        DataError, match=r"1 images have another label in second than in first \(first: 2.jpg, c and a\)"
    ):
        align(first, changed, NAMES, common=False)
    with pytest.raises(DataError, match=r"2 labels are known to one of them alone \(first: c\)"):
        align(first, predictions(np.ones(6, bool), labels=("a", "b", "d")), NAMES, common=False)
