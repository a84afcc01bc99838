"""LogME: the same as the paper's algorithm written out, at the maximum of the evidence, and blind to how axes lie."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor

from finetune.search.ranking.logme import logme


def evidence(features: Tensor, labels: Tensor, alpha: float, beta: float) -> float:
    """Return equation 2 of the paper with whole matrices."""
    count, width = features.shape
    precision = alpha * torch.eye(width, dtype=torch.float64) + beta * features.T @ features
    mean = beta * torch.linalg.solve(precision, features.T @ labels)
    error = (features @ mean - labels).square().sum()
    return float(
        width / 2 * math.log(alpha) + count / 2 * math.log(beta) - count / 2 * math.log(2 * math.pi)
        - beta / 2 * error - alpha / 2 * mean.square().sum() - torch.logdet(precision) / 2
    )  # fmt: skip


def literal(features: Tensor, targets: Tensor, num_classes: int) -> float:
    """Return LogME by algorithm 1 of the paper, one class after the other, with whole matrices."""
    features = features.double()
    count, width = features.shape
    values = []
    for label in range(num_classes):
        labels = (targets == label).double()
        alpha = beta = 1.0
        for _ in range(500):
            precision = alpha * torch.eye(width, dtype=torch.float64) + beta * features.T @ features
            mean = beta * torch.linalg.solve(precision, features.T @ labels)
            curvature = beta * torch.linalg.eigvalsh(features.T @ features).clamp(min=0)
            kept = float((curvature / (alpha + curvature)).sum())
            new = kept / float(mean.square().sum()), (count - kept) / float((features @ mean - labels).square().sum())
            done = abs(math.log(new[0] / new[1]) - math.log(alpha / beta)) < 1e-8
            alpha, beta = new
            if done:
                break
        values.append(evidence(features, labels, alpha, beta) / count)
    return sum(values) / num_classes


def informative(count: int, width: int, classes: int, strength: float) -> tuple[Tensor, Tensor]:
    """Return features that know something of the classes, as much as the strength says."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    return strength * centres[targets] + torch.randn(count, width, generator=generator, dtype=torch.float64), targets


@pytest.mark.parametrize(("count", "width"), [(60, 8), (40, 40), (30, 70)])
def test_it_is_the_algorithm_of_the_paper(count: int, width: int) -> None:
    features, targets = informative(count, width, 3, 0.5)
    assert logme(features, targets, 3) == pytest.approx(literal(features, targets, 3), abs=1e-5)


def test_no_other_precisions_make_the_labels_more_likely() -> None:
    features, targets = informative(50, 6, 2, 1.0)
    found = logme(features, targets, 2)
    grid = [10 ** (step / 4) for step in range(-8, 9)]
    best = [
        max(evidence(features, (targets == label).double(), alpha, beta) for alpha in grid for beta in grid) / 50
        for label in range(2)
    ]
    assert sum(best) / 2 - 1e-6 <= found <= sum(best) / 2 + 0.02


@settings(max_examples=20)
@given(st.integers(0, 50), st.floats(0.01, 100.0))
def test_rotating_and_scaling_features_changes_nothing(seed: int, scale: float) -> None:
    features, targets = informative(40, 5, 3, 0.7)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    expected = logme(features, targets, 3)
    assert logme(scale * features @ rotation, targets, 3) == pytest.approx(expected, abs=1e-4)


def test_the_more_features_know_the_higher_it_is() -> None:
    values = [logme(*informative(120, 16, 4, strength), 4) for strength in (0.0, 0.3, 1.0, 3.0)]
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.5


def test_columns_of_noise_make_real_features_no_better() -> None:
    digits = load_digits()
    features, targets = torch.from_numpy(digits.data[:400]), torch.from_numpy(digits.target[:400])
    noise = torch.randn(400, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * features.std()
    assert logme(torch.cat([features, noise], 1), targets, 10) < logme(features, targets, 10)
    assert logme(noise, targets, 10) < logme(features, targets, 10) - 0.2


def test_labels_that_features_give_away_have_a_finite_score() -> None:
    targets = torch.arange(20) % 2
    copied = torch.nn.functional.one_hot(targets, 2).double()
    for features in (copied, torch.randn(20, 90, dtype=torch.float64), torch.zeros(20, 3, dtype=torch.float64)):
        assert math.isfinite(logme(features, targets, 2))


def test_several_labels_per_image_are_taken_one_by_one() -> None:
    features, targets = informative(60, 8, 3, 1.0)
    hot = torch.nn.functional.one_hot(targets, 3).float()
    assert logme(features, hot, 3) == pytest.approx(logme(features, targets, 3))
