"""Differences of two runs over the same images: aligned by id, resampled together, refused where the images differ."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import recall_score

from finetune.errors import DataError
from finetune.evaluation.compare.comparison import ComparedRun, Comparison, compare_runs, mean_difference
from finetune.evaluation.compare.gate import check_gate, read_gate
from finetune.evaluation.compare.paired import OtherImagesError, align_predictions, compare_pair
from finetune.evaluation.metrics import compute_metrics
from finetune.evaluation.predictions import Predictions
from finetune.report.pages.comparison_summary import verdict

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
    paired = second.right.astype(float) - first.right
    half = norm.ppf(0.975) * paired.std(ddof=1) / np.sqrt(len(paired))
    assert change.value == pytest.approx(paired.mean(), abs=1e-6)
    assert change.low == pytest.approx(paired.mean() - half, abs=0.006)
    assert change.high == pytest.approx(paired.mean() + half, abs=0.006)
    alone = [float(each.right.std(ddof=1)) for each in (first, second)]
    unpaired = norm.ppf(0.975) * np.hypot(*alone) / np.sqrt(len(paired))
    assert change.high - change.low < 2 * unpaired * 0.8, "what is hard for both cancels"
    again = mean_difference(first.right.astype(float), second.right.astype(float), 4000, 0)
    assert (again.low, again.high) == pytest.approx((change.low, change.high), abs=1e-6)


def test_a_handful_of_wins_is_no_difference_shown_though_the_interval_leaves_out_0() -> None:
    right = np.arange(200) % 10 > 0
    for wins, shown in ((5, False), (9, True)):
        better = right.copy()
        better[np.flatnonzero(~right)[:wins]] = True
        comparison = comparison_of(predictions(right), predictions(better))
        (pair,) = comparison.pairs
        assert pair.changes.metrics["accuracy"].low > 0
        assert pair.shown == shown
        assert ("No difference" not in verdict(pair, "base")) == shown
        assert pair.agreement == pytest.approx(1 - wins / 200)


def test_a_difference_that_is_shown_alone_may_not_be_among_many() -> None:
    right = np.arange(200) % 10 > 0
    better = right.copy()
    better[np.flatnonzero(~right)[:7]] = True
    assert comparison_of(predictions(right), predictions(better)).pairs[0].shown
    many = comparison_of(predictions(right), *[predictions(better)] * 5)
    assert not any(pair.shown for pair in many.pairs)


def test_models_that_decide_alike_on_few_images_are_not_proven_to_be_alike() -> None:
    first = predictions(np.ones(10, bool))
    other = replace(first, probabilities=first.probabilities * 0.9 + 0.1 / 3)
    change = compare_pair(first, other, resamples=50).metrics["accuracy"]
    reference = binomtest(0, 10).proportion_ci(0.95).high
    assert (change.low, change.high) == pytest.approx((-reference, reference))
    (condition,) = read_gate("accuracy>=-0.005", "proven")
    assert not check_gate(condition, {"accuracy": change}, "proven").passed


def test_several_labels_are_compared_by_image_and_by_label() -> None:
    generator = np.random.default_rng(0)
    targets = (generator.random((120, 3)) < 0.4).astype(int)
    ids = np.array([f"{row}.jpg" for row in range(120)], object)
    groups = pd.DataFrame(index=range(120))

    def noisy(share: float) -> Predictions:
        flipped = targets ^ (generator.random(targets.shape) < share)
        return Predictions(ids, ids, targets, 0.1 + 0.8 * flipped, LABELS, "multilabel", groups)

    first, second = noisy(0.3), noisy(0.05)
    (pair,) = comparison_of(first, second).pairs
    exact = [(each.predicted == targets).all(axis=1) for each in (first, second)]
    assert pair.changes.metrics["exact_match"].value == pytest.approx(exact[1].mean() - exact[0].mean())
    assert (pair.test.won, pair.test.lost) == ((exact[1] & ~exact[0]).sum(), (exact[0] & ~exact[1]).sum())
    recall = [recall_score(targets, each.predicted, average=None) for each in (first, second)]
    assert [row["recall"].value for row in pair.changes.classes.values()] == pytest.approx(recall[1] - recall[0])
    assert "better than" in verdict(pair, "base") and "exact match" in verdict(pair, "base")


def comparison_of(*runs: Predictions) -> Comparison:
    named = [ComparedRun(f"run{number}", Path(f"run{number}"), each) for number, each in enumerate(runs)]
    return compare_runs(named, "test", common=False, resamples=200, seed=0)


def test_every_metric_is_the_difference_of_its_values() -> None:
    first, second = random_pair()
    found = compare_pair(first, second, resamples=0).metrics
    values = compute_metrics(first), compute_metrics(second)
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
    one, other = align_predictions(first, shuffled, NAMES, common=False)
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
        align_predictions(first, second, NAMES, common=False)
    one, other = align_predictions(first, second, NAMES, common=True)
    assert one.ids.tolist() == other.ids.tolist() == [f"{row}.jpg" for row in range(5)]
    apart = predictions(np.ones(2, bool), ids=["x", "y"])
    with pytest.raises(OtherImagesError, match="0 are in both"):
        align_predictions(first, apart, NAMES, common=True)


def test_other_labels_of_the_same_images_are_refused() -> None:
    first = predictions(np.ones(6, bool))
    changed = predictions(np.ones(6, bool))
    changed.targets[2] = (changed.targets[2] + 1) % 3
    with pytest.raises(
        DataError, match=r"1 images have another label in second than in first \(first: 2.jpg, c and a\)"
    ):
        align_predictions(first, changed, NAMES, common=False)
    with pytest.raises(DataError, match=r"2 labels are known to one of them alone \(first: c\)"):
        align_predictions(first, predictions(np.ones(6, bool), labels=("a", "b", "d")), NAMES, common=False)
