"""Solving a whole head: the weights it is left with, what the report says, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from finetune.errors import ConfigError
from finetune.models.heads.fit import HeadExamples, SolvedHead, fit_head
from finetune.models.heads.modules import HeadSpec, build_head
from finetune.models.heads.settings import SolverSettings


def solved(
    examples: HeadExamples, settings: SolverSettings, spec: HeadSpec | None = None
) -> tuple[nn.Sequential, SolvedHead]:
    """Return a solved head in float64 and its report."""
    spec = spec or HeadSpec(standardize=True)
    head = build_head(spec, examples.features.shape[1], examples.num_classes).double().eval()
    return head, fit_head(head, spec, examples, settings)


@pytest.mark.parametrize("standardize", [True, False])
def test_probabilities_are_those_of_scikit_learn(digit_features: tuple[Tensor, Tensor], standardize: bool) -> None:
    features, classes = digit_features
    weights = torch.linspace(0.5, 1.5, 400, dtype=torch.float64)
    per_class = torch.linspace(0.5, 2, 10, dtype=torch.float64)
    examples = HeadExamples(features, classes, "multiclass", 10, sample_weights=weights, class_weights=per_class)
    head, report = solved(examples, SolverSettings("lbfgs", l2=0.01), HeadSpec(standardize=standardize))
    ready = StandardScaler().fit_transform(features.numpy()) if standardize else features.numpy()
    own = (weights * per_class[classes]).numpy()
    model = LogisticRegression(C=1 / (own.sum() * 0.01), tol=1e-9, max_iter=9000).fit(ready, classes, sample_weight=own)
    found = head(features).softmax(1).detach()
    assert np.allclose(found, model.predict_proba(ready), atol=2e-3)
    assert report.converged and report.l2 == 0.01 and report.curve == () and report.zeros < 0.1


def test_smoothed_and_weighted_optimum_is_one_of_torchs_loss(digit_features: tuple[Tensor, Tensor]) -> None:
    features, classes = digit_features
    per_class = torch.linspace(0.5, 2, 10, dtype=torch.float64)
    examples = HeadExamples(features, classes, "multiclass", 10, class_weights=per_class, smoothing=0.1)
    head, _ = solved(examples, SolverSettings("lbfgs", l2=0.02), HeadSpec())
    linear = head[-1]
    assert isinstance(linear, nn.Linear)
    loss = nn.functional.cross_entropy(head(features), classes, weight=per_class, label_smoothing=0.1)
    (loss + 0.01 * linear.weight.square().sum()).backward()
    assert linear.weight.grad is not None and linear.weight.grad.abs().max() < 1e-3


@pytest.mark.parametrize("solver", ["lbfgs", "proximal"])
@pytest.mark.parametrize("classes", [2, 3])
def test_chosen_strength_separates_what_can_be_separated_and_repeats_itself(solver: str, classes: int) -> None:
    torch.manual_seed(0)
    labels = torch.arange(90) % classes
    features = torch.randn(90, 20, dtype=torch.float64)
    features[:, :classes] += 3 * nn.functional.one_hot(labels, classes)
    examples = HeadExamples(features, labels, "multiclass", classes)
    settings = SolverSettings(solver, l2=None if solver == "lbfgs" else 0.0, l1=None if solver == "proximal" else 0.0)  # type: ignore[arg-type]
    head, report = solved(examples, settings)
    again, other = solved(examples, settings)
    assert (head(features).argmax(1) == labels).double().mean() > 0.9
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True))
    assert report.curve == other.curve and report.folds == 5
    assert (report.zeros > 0.3) == (solver == "proximal")


def test_labels_of_a_multilabel_task_are_solved() -> None:
    torch.manual_seed(0)
    features = torch.randn(80, 6, dtype=torch.float64)
    labels = (features[:, :3] > 0).long()
    head, report = solved(HeadExamples(features, labels, "multilabel", 3), SolverSettings("lbfgs", l2=None, folds=3))
    assert ((head(features) > 0).long() == labels).double().mean() > 0.9
    assert max(point.accuracy for point in report.curve) > 0.85


def test_chunks_and_constant_features_change_nothing() -> None:
    torch.manual_seed(0)
    features = torch.cat([torch.randn(60, 5), torch.full((60, 1), 7.0)], dim=1).double()
    labels = torch.arange(60) % 3
    whole, _ = solved(HeadExamples(features, labels, "multiclass", 3), SolverSettings("lbfgs", l2=0.1))
    pieces, _ = solved(HeadExamples(features, labels, "multiclass", 3, chunk=13), SolverSettings("lbfgs", l2=0.1))
    assert torch.allclose(whole(features), pieces(features), atol=1e-3)
    assert torch.isfinite(whole(features)).all()


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("standardize", [True, False])
def test_means_of_separate_classes_recognise_them(kind: str, standardize: bool) -> None:
    torch.manual_seed(0)
    labels = torch.arange(40) % 4
    features = torch.randn(40, 8, dtype=torch.float64) + 5 * torch.eye(8, dtype=torch.float64)[labels]
    spec = HeadSpec(kind, standardize=standardize)  # type: ignore[arg-type]
    head, report = solved(HeadExamples(features, labels, "multiclass", 4), SolverSettings("nearest_mean"), spec)
    assert torch.equal(head(features).argmax(1), labels)
    assert report.scale is not None and report.scale > 0


@pytest.mark.parametrize(
    ("spec", "settings", "options", "expected"),
    [
        (HeadSpec(), SolverSettings("nearest_mean"), {"task": "multilabel"}, "several"),
        (HeadSpec("mlp"), SolverSettings("lbfgs", l2=1.0), {}, "head.kind=mlp"),
        (HeadSpec("cosine"), SolverSettings("lbfgs", l2=1.0), {}, "head.kind=cosine"),
        (HeadSpec(), SolverSettings("lbfgs", l2=None), {"targets": torch.arange(6)}, "head.l2=cv"),
    ],
)
def test_what_cannot_be_solved_is_one_clear_line(
    spec: HeadSpec, settings: SolverSettings, options: dict[str, Any], expected: str
) -> None:
    given = {"features": torch.randn(6, 3), "targets": torch.arange(6) % 2, "task": "multiclass", "num_classes": 6}
    with pytest.raises(ConfigError) as caught:
        solved(HeadExamples(**(given | options)), settings, spec)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
