"""Solvers against scikit-learn's logistic regression, and what rotating, batching and chunks must not change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from finetune.models.heads.lbfgs import LbfgsSolution, minimise_lbfgs
from finetune.models.heads.logistic_loss import (
    ClassTargets,
    LogisticObjective,
    collapse,
    expand_weights,
    make_design,
    sigmoid_targets,
    softmax_targets,
)


def fitted(
    features: Tensor,
    targets: ClassTargets,
    weights: Tensor,
    l2: Tensor,
    *,
    rotate: bool = True,
    chunk: int | None = None,
) -> tuple[LbfgsSolution, Tensor, Tensor]:
    """Return the solution, and weights (P, K, F) and biases (P, K) of the plain features."""
    center, scale = features.mean(0), torch.ones_like(features[0])
    design = make_design(features, center, scale, rotate=rotate, dtype=features.dtype, chunk=chunk)
    objective = LogisticObjective(design, targets, weights / weights.sum(0), chunk)
    solution = minimise_lbfgs(objective, l2, tolerance=torch.full_like(l2, 1e-8), iterations=3000)
    weight, bias = design.restore(solution.weight)
    return solution, weight.permute(2, 1, 0), bias.T - torch.einsum("fkp,f->pk", weight, center)


def reference(features: Tensor, classes: Tensor, weights: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Return scikit-learn's weights (K, F) and biases (K,)."""
    strength = 1 / (float(weights.sum()) * l2)
    model = LogisticRegression(C=strength, tol=1e-9, max_iter=20000, solver="newton-cholesky")
    model.fit(features.numpy(), classes.numpy(), sample_weight=weights.numpy())
    return torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-3])
@pytest.mark.parametrize("rotate", [True, False])
def test_softmax_equals_scikit_learn(digit_features: tuple[Tensor, Tensor], l2: float, rotate: bool) -> None:
    features, classes = digit_features
    torch.manual_seed(0)
    weights = torch.rand(len(classes), 1, dtype=torch.float64) + 0.1
    targets = softmax_targets(classes, 10, 0.0, None)
    strengths = torch.tensor([l2], dtype=torch.float64)
    solution, weight, bias = fitted(features, targets, weights, strengths, rotate=rotate)
    expected, intercept = reference(features, classes, weights[:, 0], l2)
    assert solution.converged.all()
    assert torch.allclose(weight[0], expected, atol=2e-5)
    assert torch.allclose(bias[0] - bias[0].mean(), intercept - intercept.mean(), atol=1e-4)


@given(st.integers(0, 50), st.integers(2, 4), st.sampled_from([(40, 5), (12, 30)]))
@settings(max_examples=10)
def test_problems_together_equal_each_by_itself(seed: int, classes: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(seed)
    features = torch.randn(*shape, dtype=torch.float64)
    labels = torch.arange(shape[0]) % classes
    weights = torch.rand(shape[0], 3, dtype=torch.float64) + 0.05
    l2 = torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    targets = softmax_targets(labels, classes, 0.1, None)
    _, weight, bias = fitted(features, targets, weights, l2)
    for index in range(3):
        one = fitted(features, targets, weights[:, index : index + 1], l2[index : index + 1], rotate=False)
        assert torch.allclose(weight[index], one[1][0], atol=1e-5)
        assert torch.allclose(bias[index].softmax(0), one[2][0].softmax(0), atol=1e-5)


@pytest.mark.parametrize("shape", [(60, 8), (20, 50)])
def test_two_classes_as_one_difference_equal_two_columns(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(*shape, dtype=torch.float64), torch.arange(shape[0]) % 2
    weights, l2 = torch.rand(shape[0], 1, dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
    class_weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    targets = softmax_targets(labels, 2, 0.1, class_weights)
    _, both, _ = fitted(features, targets, weights, l2)
    _, difference, _ = fitted(features, collapse(targets), weights, l2 / 2)
    assert torch.allclose(expand_weights(difference.permute(2, 1, 0), 2)[:, :, 0].T, both[0], atol=1e-6)


def test_two_classes_equal_scikit_learn_whose_penalty_is_on_their_difference() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(60, 8, dtype=torch.float64), torch.arange(60) % 2
    weights = torch.ones(60, 1, dtype=torch.float64)
    l2 = torch.tensor([0.1], dtype=torch.float64)
    _, weight, _ = fitted(features, softmax_targets(labels, 2, 0.0, None), weights, l2)
    assert torch.allclose(
        weight[0, 1] - weight[0, 0], reference(features, labels, weights[:, 0], 0.05)[0][0], atol=1e-6
    )


def test_each_label_is_a_logistic_regression_by_itself() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(80, 6, dtype=torch.float64), (torch.rand(80, 3) < 0.4).double()
    positive = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    weights, l2 = torch.ones(80, 1, dtype=torch.float64), torch.tensor([0.02], dtype=torch.float64)
    _, weight, bias = fitted(features, sigmoid_targets(labels, 0.0, positive), weights, l2)
    for label in range(3):
        own = torch.where(labels[:, label] > 0, positive[label], 1.0)
        model = LogisticRegression(C=1 / (80 * 0.02), tol=1e-10, max_iter=5000, solver="newton-cholesky")
        model.fit(features.numpy(), labels[:, label].numpy(), sample_weight=own.numpy())
        assert np.allclose(weight[0, label], model.coef_[0], atol=1e-6)
        assert np.allclose(bias[0, label], model.intercept_, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("hard", [True, False])
def test_loss_is_torchs_weighted_and_smoothed_cross_entropy(smoothing: float, hard: bool) -> None:
    torch.manual_seed(0)
    logits, class_weights = torch.randn(20, 4, dtype=torch.float64), torch.tensor([1.0, 2.0, 0.5, 0.0]).double()
    target = torch.arange(20) % 4 if hard else torch.rand(20, 4, dtype=torch.float64).softmax(1)
    targets = softmax_targets(target, 4, smoothing, class_weights)
    image = class_weights[target] if hard else torch.ones(20, dtype=torch.float64)
    if hard and smoothing:  # an image of a class without weight counts for nothing here
        keep = image > 0
        logits, target, image = logits[keep], target[keep], image[keep]
        targets = softmax_targets(target, 4, smoothing, class_weights)
    ours = (targets.loss(logits[:, :, None], slice(None))[0][:, 0] * image).sum() / image.sum()
    expected = functional.cross_entropy(logits, target, weight=class_weights, label_smoothing=smoothing)
    assert torch.allclose(ours, expected)


@pytest.mark.parametrize("joint", [True, False])
def test_gradient_is_that_of_automatic_differentiation(joint: bool) -> None:
    torch.manual_seed(0)
    features, weights = torch.randn(15, 4, dtype=torch.float64), torch.rand(15, 2, dtype=torch.float64)
    soft = torch.rand(15, 3, dtype=torch.float64)
    targets = softmax_targets(soft, 3, 0.1, None) if joint else sigmoid_targets(soft, 0.1, None)
    design = make_design(features, features.mean(0), features.std(0), rotate=True, dtype=torch.float64)
    weight = torch.randn(5, 3, 2, dtype=torch.float64, requires_grad=True)
    value, gradient = LogisticObjective(design, targets, weights, chunk=4)(weight)
    (expected,) = torch.autograd.grad(value.sum(), weight)
    assert torch.allclose(gradient, expected)


def test_chunks_of_features_on_disk_change_nothing(tmp_path: object) -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(50, 6, dtype=torch.float64), torch.arange(50) % 3
    weights, l2 = torch.ones(50, 1, dtype=torch.float64), torch.tensor([0.05], dtype=torch.float64)
    targets = softmax_targets(labels, 3, 0.0, None)
    stored = np.memmap(f"{tmp_path}/features", dtype=np.float64, mode="w+", shape=(50, 6))
    stored[:] = features.numpy()
    _, whole, bias = fitted(features, targets, weights, l2)
    _, pieces, other = fitted(torch.from_numpy(stored), targets, weights, l2, chunk=7)
    assert torch.allclose(whole, pieces, atol=1e-6)
    assert torch.allclose(bias.softmax(1), other.softmax(1), atol=1e-6)


def test_single_precision_arrives_too(digit_features: tuple[Tensor, Tensor]) -> None:
    features, classes = digit_features[0].float(), digit_features[1]
    design = make_design(features, features.mean(0), torch.ones(64), rotate=True, dtype=torch.float32)
    targets = softmax_targets(classes, 10, 0.0, None).to(features)
    objective = LogisticObjective(design, targets, torch.full((400, 1), 1 / 400))
    solution = minimise_lbfgs(objective, torch.tensor([1e-2]), tolerance=torch.tensor([1e-5]))
    expected, _ = reference(digit_features[0], classes, torch.ones(400), 1e-2)
    assert solution.converged.all()
    assert torch.allclose(design.restore(solution.weight)[0][:, :, 0].T.double(), expected, atol=5e-3)


def test_strong_penalty_leaves_the_class_frequencies() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(60, 5, dtype=torch.float64), torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    weights, l2 = torch.ones(60, 1, dtype=torch.float64), torch.tensor([1e6], dtype=torch.float64)
    _, _, bias = fitted(features, softmax_targets(labels, 3, 0.0, None), weights, l2)
    assert torch.allclose(bias[0].softmax(0), torch.tensor([40, 15, 5]).double() / 60, atol=1e-4)
