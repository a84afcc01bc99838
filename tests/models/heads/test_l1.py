"""Sparse solutions against scikit-learn's, and the strength above which nothing is left."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from finetune.models.heads.l1 import fit_bias, largest_l1, minimise_l1, optimality
from finetune.models.heads.logistic_loss import (
    DesignMatrix,
    LogisticObjective,
    make_design,
    sigmoid_targets,
    softmax_targets,
)


def problem(
    features: Tensor, classes: Tensor, num_classes: int, count: int = 1
) -> tuple[DesignMatrix, LogisticObjective]:
    """Return equal problems on centred features."""
    design = make_design(features, features.mean(0), torch.ones_like(features[0]), rotate=False, dtype=features.dtype)
    shares = torch.full((len(features), count), 1 / len(features), dtype=features.dtype)
    return design, LogisticObjective(design, softmax_targets(classes, num_classes, 0.0, None).to(features), shares)


def numbers(*values: float) -> Tensor:
    """Return numbers in float64."""
    return torch.tensor(values, dtype=torch.float64)


def value(objective: LogisticObjective, weight: Tensor, l1: float, l2: float) -> float:
    """Return the penalised mean loss of one problem's weights."""
    inner = weight[:-1]
    return float(objective(weight)[0] + l1 * inner.abs().sum() + l2 / 2 * inner.square().sum())


@pytest.mark.parametrize(("l1", "l2"), [(0.02, 0.0), (0.005, 0.0), (0.005, 0.01)])
def test_sparse_solution_is_as_good_as_scikit_learns(
    digit_features: tuple[Tensor, Tensor], l1: float, l2: float
) -> None:
    features, classes = digit_features[0][:200], digit_features[1][:200]
    _, objective = problem(features, classes, 10)
    solution = minimise_l1(objective, numbers(l1), numbers(l2), tolerance=numbers(1e-6))
    model = LogisticRegression(
        C=1 / (200 * (l1 + l2)), l1_ratio=l1 / (l1 + l2), solver="saga", tol=1e-6, max_iter=10000
    )
    model.fit((features - features.mean(0)).numpy(), classes.numpy())
    theirs = torch.from_numpy(np.vstack([model.coef_.T, model.intercept_]))[:, :, None]
    ours = value(objective, solution.weight, l1, l2)
    assert solution.converged.all()
    assert ours == pytest.approx(float(solution.value))
    assert ours <= value(objective, theirs, l1, l2) * (1 + 1e-6)
    assert ours == pytest.approx(value(objective, theirs, l1, l2), rel=1e-4)
    assert (solution.weight[:-1] == 0).double().mean() > 0.3


@pytest.mark.parametrize("joint", [True, False])
def test_all_weights_are_zero_exactly_from_the_closed_form_on(joint: bool) -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(60, 7, dtype=torch.float64), torch.tensor([0] * 30 + [1] * 20 + [2] * 10)
    design, objective = problem(features, labels, 3)
    if not joint:
        targets = sigmoid_targets((torch.rand(60, 3) < 0.3).double(), 0.0, None)
        objective = LogisticObjective(design, targets, objective.weights)
    largest = largest_l1(objective)
    probabilities = objective.targets.positive.mean(0)
    slopes = (features - features.mean(0)).T @ (probabilities - objective.targets.positive) / 60
    assert torch.allclose(largest, slopes.abs().max())
    assert (minimise_l1(objective, largest * 1.001, numbers(0), tolerance=numbers(1e-8)).weight[:-1] == 0).all()
    assert (minimise_l1(objective, largest * 0.99, numbers(0), tolerance=numbers(1e-8)).weight[:-1] != 0).any()


def test_best_bias_is_a_stationary_point() -> None:
    torch.manual_seed(0)
    _, objective = problem(torch.randn(40, 3, dtype=torch.float64), torch.tensor([0] * 20 + [1] * 15 + [2] * 5), 3)
    assert objective(fit_bias(objective))[1][-1].abs().max() < 1e-12


def test_sparse_problems_together_equal_each_by_itself() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(30, 50, dtype=torch.float64), torch.arange(30) % 3
    _, objective = problem(features, labels, 3, count=3)
    l1, l2 = numbers(0.1, 0.03, 0.02), numbers(0, 0, 0.1)
    together = minimise_l1(objective, l1, l2, tolerance=numbers(1e-9, 1e-9, 1e-9))
    assert together.converged.all()
    assert (optimality(together.weight, objective(together.weight)[1] + l2 * together.weight, l1)[:2] < 1e-8).all()
    for index in range(3):
        own = torch.tensor([index])
        alone = minimise_l1(objective.keep(own), l1[own], l2[own], tolerance=numbers(1e-9))
        assert torch.allclose(alone.value[0], together.value[index], rtol=1e-8)


def test_warm_start_and_chunks_change_no_solution() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(40, 10, dtype=torch.float64), torch.arange(40) % 3
    _, objective = problem(features, labels, 3)
    cold = minimise_l1(objective, numbers(0.03), numbers(0), tolerance=numbers(1e-9))
    start = minimise_l1(objective, numbers(0.08), numbers(0), tolerance=numbers(1e-9)).weight
    warm = minimise_l1(objective, numbers(0.03), numbers(0), tolerance=numbers(1e-9), start=start)
    lazy = make_design(
        features, features.mean(0), torch.ones_like(features[0]), rotate=False, dtype=torch.float64, chunk=9
    )
    pieces = LogisticObjective(lazy, objective.targets, objective.weights, chunk=9)
    chunked = minimise_l1(pieces, numbers(0.03), numbers(0), tolerance=numbers(1e-9))
    assert torch.allclose(cold.value, warm.value, rtol=1e-9)
    assert torch.allclose(cold.value, chunked.value, rtol=1e-9)
