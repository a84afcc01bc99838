"""The probe: what a cross-validation by hand finds, and blind to images it was not given."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from finetune.models.heads.fit import HeadExamples
from finetune.models.heads.penalty_cv import make_label_folds
from finetune.search.ranking.logme import logme
from finetune.search.ranking.probe import score_features


def digits(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = load_digits()
    return torch.from_numpy(found.data[:count]).float(), torch.from_numpy(found.target[:count])


def test_it_agrees_with_scikit_learns_cross_validation() -> None:
    features, targets = digits(400)
    found = score_features(HeadExamples(features, targets, "multiclass", 10), folds=4, seed=0)
    folds = make_label_folds(targets.numpy(), 4, 0)
    hits = []
    for fold in range(4):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
        model.fit(features[folds != fold].numpy(), targets[folds != fold].numpy())
        hits.append(model.score(features[folds == fold].numpy(), targets[folds == fold].numpy()))
    assert found.accuracy == pytest.approx(np.mean(hits), abs=0.02) and found.folds == 4
    assert 0 < found.accuracy_error < 0.03 and 0 < found.nll_error < found.nll
    assert found.logme == pytest.approx(logme(features, targets, 10))


def test_better_features_score_better_in_every_way() -> None:
    features, targets = digits(300)
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0)) * features.std() * 3
    good, bad = (
        score_features(HeadExamples(values, targets, "multiclass", 10), folds=3, seed=0)
        for values in (features, features + noise)
    )
    assert good.accuracy > bad.accuracy and good.nll < bad.nll and good.logme > bad.logme


def test_the_same_features_score_the_same_whatever_was_drawn_before() -> None:
    features, targets = digits(120)
    examples = HeadExamples(features, targets, "multiclass", 10)
    first = score_features(examples, folds=3, seed=1)
    torch.rand(7)
    assert score_features(examples, folds=3, seed=1) == first
