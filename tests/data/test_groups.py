"""Balanced images: each class of each group has the same weight, in draws and in the loss."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.groups import balancing_weights, joined_names
from finetune.data.sampling import TrainBatches


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("AB")), min_size=1, max_size=60))
def test_each_class_of_each_group_has_the_same_sum(images: list[tuple[int, str]]) -> None:
    targets, groups = np.array([label for label, _ in images]), np.array([group for _, group in images], object)
    weights = balancing_weights(targets, groups)
    sums = pd.Series(weights).groupby([targets, groups]).sum()
    assert np.allclose(sums, len(images) / len(sums))
    assert weights.mean() == pytest.approx(1)


def test_the_weight_is_the_inverse_of_the_cells_share() -> None:
    targets, groups = np.repeat([0, 0, 1, 1], [60, 20, 10, 10]), np.repeat(["A", "B", "A", "B"], [60, 20, 10, 10])
    expected = {(0, "A"): 100 / (4 * 60), (0, "B"): 100 / (4 * 20), (1, "A"): 2.5, (1, "B"): 2.5}
    found = balancing_weights(targets, groups)
    assert found == pytest.approx([expected[cell] for cell in zip(targets.tolist(), groups.tolist(), strict=True)])


def test_with_several_labels_the_rarest_of_an_image_in_its_group_counts() -> None:
    targets = np.array([[1, 0], [1, 0], [1, 1], [0, 0], [1, 0]], dtype=np.float32)
    weights = balancing_weights(targets, np.array(["A", "A", "A", "A", "B"]))
    assert weights / weights[0] == pytest.approx([1, 1, 3, 0.75, 3])


def test_balanced_draws_take_each_class_of_each_group_equally_often() -> None:
    targets, groups = np.repeat([0, 1, 0, 1], [95, 5, 5, 95]), np.repeat(["A", "B"], 100)
    weights = balancing_weights(targets, groups)
    counts: Counter[tuple[int, str]] = Counter()
    sampler = TrainBatches(np.arange(200), 20, seed=0, weights=weights)
    for epoch in range(50):
        sampler.set_epoch(epoch)
        counts.update((int(targets[draw.row]), str(groups[draw.row])) for batch in sampler for draw in batch)
    assert len(counts) == 4
    assert all(abs(number / 10_000 - 0.25) < 0.02 for number in counts.values())


def test_two_columns_are_joined_by_row() -> None:
    frame = pd.DataFrame({"site": ["A", "B", None], "sex": ["f", "m", "f"]})
    assert joined_names(frame, ["site", "sex"]).tolist() == ["A x f", "B x m", "missing x f"]
