"""Distances agree with SciPy, their p is uniform where nothing has changed, and changes are found."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist, jensenshannon, pdist

from finetune.evaluation.drift.two_sample import (
    Shift,
    class_shift,
    confidence_shift,
    feature_shift,
    jensen_shannon,
    label_shift,
    random_subsets,
)

REPEATS = 200


def normal(seed: int, count: int, width: int = 6, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, width))


def test_energy_distance_is_that_of_all_pairs() -> None:
    first, second = normal(0, 31), normal(1, 17, shift=0.5)
    between = cdist(first, second).mean()
    expected = (2 * between - pdist(first).mean() - pdist(second).mean()) / (2 * between)
    assert feature_shift(first, second, permutations=1).distance == pytest.approx(expected, abs=1e-5)


def test_energy_distance_is_that_of_scipy_but_for_the_pairs_of_an_image_with_itself() -> None:
    first, second = normal(0, 40, 1), normal(1, 25, 1, shift=1.0)
    between = cdist(first, second).mean()
    within = pdist(first).mean() / 40 + pdist(second).mean() / 25
    expected = (stats.energy_distance(first[:, 0], second[:, 0]) ** 2 - within) / (2 * between)
    assert feature_shift(first, second, permutations=1).distance == pytest.approx(expected, abs=1e-5)


def assert_uniform(values: list[float]) -> None:
    """Check p by Kolmogorov and Smirnov; those of permutations lie on a lattice, which a jitter of its step fills."""
    jitter = np.random.default_rng(0).uniform(0, 0.01, len(values))
    assert stats.kstest(np.asarray(values) - jitter, "uniform").pvalue > 0.01


def test_p_is_uniform_where_features_have_one_origin() -> None:
    found = [
        feature_shift(normal(2 * seed, 30), normal(2 * seed + 1, 12), permutations=99, seed=seed).p
        for seed in range(REPEATS)
    ]
    assert_uniform(found)


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_p_holds_its_level_where_predictions_have_one_origin(kind: str) -> None:
    found = []
    for seed in range(REPEATS):
        generator = np.random.default_rng(seed)
        if kind == "classes":
            before, now = (generator.multinomial(count, [0.5, 0.3, 0.15, 0.05]) for count in (300, 200))
            found.append(class_shift(before, now, permutations=99, seed=seed).p)
        else:
            before, now = ((generator.random((count, 4)) < [0.1, 0.4, 0.5, 0.7]) for count in (120, 80))
            found.append(label_shift(before.astype(int), now.astype(int), permutations=99, seed=seed).p)
    for level in (0.05, 0.2, 0.5):  # few values are possible, so that p is a little above uniform
        assert stats.binomtest(sum(p <= level for p in found), REPEATS, level, alternative="greater").pvalue > 0.01
    assert np.mean(found) < 0.6


@pytest.mark.parametrize("change", ["moved", "spread", "one feature", "dependence"])
def test_changed_features_are_found(change: str) -> None:
    first, second = normal(0, 200), normal(1, 100)
    if change == "moved":
        second = second + 0.4
    elif change == "spread":
        second = second * 1.6
    elif change == "one feature":
        second[:, 0] += 1.0
    else:
        second = np.repeat(second[:, :1], 6, axis=1)
    found = feature_shift(first, second, permutations=199)
    assert found.p == pytest.approx(1 / 200) and found.distance > found.chance > 0


def test_distance_does_not_depend_on_how_many_images_there_are() -> None:
    few = np.mean([feature_shift(normal(0, 300), normal(s, 20, shift=1.0), permutations=1).distance for s in range(40)])
    many = feature_shift(normal(0, 300), normal(99, 500, shift=1.0), permutations=1).distance
    assert few == pytest.approx(many, rel=0.1)


def test_same_images_are_no_drift_and_one_image_is_enough_to_ask() -> None:
    features = normal(0, 50)
    same = feature_shift(features, features, permutations=99)
    assert same.distance == 0 and same.p > 0.9
    far = feature_shift(features, features[:1] + 100)
    assert far.p == pytest.approx(1 / 51, abs=0.015) and far.distance > 0.9


def test_constant_features_are_no_drift() -> None:
    found = feature_shift(np.ones((10, 3)), np.ones((5, 3)), permutations=19)
    assert found == Shift(0.0, 0.0, 1.0)


def test_distance_of_classes_is_scipys() -> None:
    before, now = np.array([10, 30, 0, 60]), np.array([25, 0, 5, 20])
    expected = jensenshannon(before / 100, now / 50, base=2)
    assert class_shift(before, now, permutations=9).distance == pytest.approx(expected, abs=1e-12)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1


def test_distance_of_labels_is_scipys_over_each_label() -> None:
    generator = np.random.default_rng(0)
    before, now = (generator.random((30, 3)) < 0.3).astype(int), (generator.random((20, 3)) < 0.6).astype(int)
    shares = zip(before.mean(0), now.mean(0), strict=True)
    expected = np.sqrt(np.mean([jensenshannon([p, 1 - p], [q, 1 - q], base=2) ** 2 for p, q in shares]))
    assert label_shift(before, now, permutations=9).distance == pytest.approx(expected, abs=1e-6)


def test_changed_classes_are_found_with_the_p_of_fishers_exact_test() -> None:
    before, now = np.array([40, 60]), np.array([26, 14])
    exact = stats.fisher_exact([before, now]).pvalue
    found = class_shift(before, now, permutations=20_000)
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))


def test_confidences_are_compared_by_kolmogorov_and_smirnov() -> None:
    before, now = np.random.default_rng(0).random(80), np.random.default_rng(1).random(50) ** 2
    expected = stats.ks_2samp(before, now)
    found = confidence_shift(before, now)
    assert (found.distance, found.p) == (expected.statistic, expected.pvalue)
    # at the distance that chance exceeds in one of twenty cases, p is one of twenty
    assert stats.kstwobign.sf(found.chance * np.sqrt(80 * 50 / 130)) == pytest.approx(0.05, abs=1e-3)


def test_subsets_are_all_of_one_size_without_repeats_and_equally_likely() -> None:
    drawn = np.concatenate(list(random_subsets(6, 2, 3000, np.random.default_rng(0))))
    assert drawn.shape == (3000, 2) and (drawn[:, 0] != drawn[:, 1]).all()
    counts = np.bincount(drawn.ravel(), minlength=6)
    assert stats.chisquare(counts).pvalue > 0.01
