"""Greedy selection is never worse on validation than its best member, and stacking learns what members know."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from finetune.ensembles.combine.methods import ValidationScorer
from finetune.ensembles.combine.weighting import greedy_weights, stacking_layer
from finetune.errors import DataError
from finetune.evaluation.fold_scores import with_probabilities
from finetune.evaluation.predictions import Predictions
from finetune.models.ensemble_network import scores_of

JUDGE = ValidationScorer("val/accuracy", 1.0)


def members(
    number: int, seed: int, *, images: int = 40, skill: Sequence[float] = (), labels: int = 3
) -> list[Predictions]:
    """Return members whose logits for the right label are higher by their skill."""
    random = np.random.default_rng(seed)
    targets = np.arange(images) % labels
    ids = np.array([f"{row}" for row in range(images)], object)
    names = tuple("abcdef"[:labels])
    found = []
    for member in range(number):
        logits = random.normal(size=(images, labels))
        logits[np.arange(images), targets] += skill[member] if skill else random.uniform(0, 2)
        found.append(
            Predictions(
                ids, ids, targets, softmax(logits, axis=1), names, "multiclass", pd.DataFrame(index=range(images))
            )
        )
    return found


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(0, 100), st.integers(1, 8))
def test_greedy_selection_is_no_worse_than_its_best_member(number: int, seed: int, rounds: int) -> None:
    found = members(number, seed)
    weights = greedy_weights(found, JUDGE, rounds)
    assert weights.sum() == pytest.approx(1)
    assert np.allclose(weights * rounds_of(weights), np.round(weights * rounds_of(weights)))
    mixed = np.einsum("m,mnk->nk", weights, np.stack([each.probabilities for each in found]))
    assert JUDGE(with_probabilities(found[0], mixed)) >= max(map(JUDGE, found))


def rounds_of(weights: np.ndarray) -> int:
    """Return the number of selections that weights are shares of."""
    return next(number for number in range(1, 9) if np.allclose(weights * number, np.round(weights * number)))


def test_one_round_is_the_best_member_alone() -> None:
    found = members(3, 1, skill=(0.0, 3.0, 1.0))
    assert greedy_weights(found, JUDGE, 1).tolist() == [0.0, 1.0, 0.0]


def test_stacking_trusts_the_member_that_knows_and_not_the_one_that_guesses() -> None:
    found = members(2, 0, images=600, skill=(2.0, 0.0))
    weight, bias = stacking_layer(found, seed=0)
    assert weight.shape == (3, 6) and bias.shape == (3,)
    assert weight[:, :3].abs().sum() > 5 * weight[:, 3:].abs().sum()
    fresh = members(2, 7, images=600, skill=(2.0, 0.0))
    scores = scores_of(np.stack([each.probabilities for each in fresh]), multilabel=False)
    said = scores.transpose(0, 1).flatten(1).float() @ weight.T + bias
    stacked = (said.argmax(1).numpy() == fresh[0].targets).mean()
    mean = np.mean([each.probabilities for each in fresh], axis=0).argmax(1)
    assert stacked > (mean == fresh[0].targets).mean()


def test_stacking_of_two_labels_is_the_same_in_both_directions() -> None:
    weight, bias = stacking_layer(members(2, 0, images=60, labels=2), seed=0)
    assert torch.equal(weight[0], -weight[1]) and torch.equal(bias[0], -bias[1])


def test_stacking_of_several_labels_looks_at_each_by_itself() -> None:
    random = np.random.default_rng(0)
    targets = (random.random((200, 3)) < 0.5).astype(np.int8)
    ids = np.array([str(row) for row in range(200)], object)
    empty = pd.DataFrame(index=range(200))
    found = [
        Predictions(ids, ids, targets, expit(skill * (2 * targets - 1) + random.normal(size=(200, 3))), ("a", "b", "c"),
                    "multilabel", empty) for skill in (2.0, 0.5)
    ]  # fmt: skip
    weight, _ = stacking_layer(found, seed=0)
    assert weight.shape == (3, 6)
    assert all(weight[label].argmax() == label for label in range(3))  # the better member's log-odds of that label


def test_stacking_says_which_class_is_too_small() -> None:
    found = members(2, 0, images=7)
    few = [each.take([0, 1, 3, 4, 6, 2]) for each in found]  # one image of c
    with pytest.raises(DataError, match="'c' has fewer than 2"):
        stacking_layer(few, seed=0)
