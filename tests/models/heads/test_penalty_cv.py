"""Folds and the choice of a strength: what is held out, and that the best on held-out images wins."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import Tensor

from finetune.models.heads.fit import HeadExamples, fit_head
from finetune.models.heads.modules import HeadSpec, build_head
from finetune.models.heads.penalty_cv import make_label_folds, rarest_label, strengths_below
from finetune.models.heads.settings import SolverSettings


@given(st.lists(st.integers(2, 9), min_size=2, max_size=5), st.integers(2, 6), st.integers(0, 99))
def test_every_class_is_on_both_sides_of_every_fold(sizes: list[int], wanted: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    folds = make_label_folds(labels, wanted, seed)
    number = folds.max() + 1
    assert number == max(2, min(wanted, *sizes))
    for fold in range(number):
        assert set(labels[folds == fold]) == set(labels) == set(labels[folds != fold])
    assert np.array_equal(folds, make_label_folds(labels, wanted, seed))


@given(st.integers(0, 99), st.integers(2, 4))
def test_folds_part_no_group(seed: int, wanted: int) -> None:
    generator = np.random.default_rng(seed)
    groups = np.arange(40) // 4
    folds = make_label_folds(generator.integers(0, 3, 40), wanted, seed, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in range(10))
    assert set(folds) == set(range(folds.max() + 1))


def test_only_image_of_a_class_is_always_learnt_and_few_images_make_fewer_folds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    folds = make_label_folds(np.array([0, 0, 0, 1, 1, 1, 2]), 5, 0)
    assert folds[6] == -1
    assert folds.max() == 2
    assert "3" in caplog.messages[0] and "1 of 3 classes" in caplog.messages[1]


def test_nothing_is_held_out_where_all_classes_have_one_image() -> None:
    assert (make_label_folds(np.arange(4), 5, 0) == -1).all()


def test_rarest_label_stands_for_an_image() -> None:
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 0, 1]])
    assert rarest_label(labels).tolist() == [1, 0, 2, 3, 2]


def test_strengths_are_equally_far_apart_in_their_logarithms() -> None:
    strengths = np.log10(strengths_below(100.0, 1e-4))
    assert strengths[0] == pytest.approx(2) and strengths[-1] == pytest.approx(-2)
    assert np.allclose(np.diff(strengths), -4 / 29)


def test_curve_is_that_of_scikit_learn_fitted_fold_by_fold(digit_features: tuple[Tensor, Tensor]) -> None:
    features, classes = digit_features[0][:150], digit_features[1][:150]
    head, spec = build_head(HeadSpec(standardize=True), 64, 10), HeadSpec(standardize=True)
    examples = HeadExamples(features, classes, "multiclass", 10)
    solved = fit_head(head, spec, examples, SolverSettings("lbfgs", l2=None, folds=3, seed=1))
    std = features.std(0, correction=0)
    ready = ((features - features.mean(0)) / torch.where(std > 0, std, 1.0)).numpy()
    folds = make_label_folds(classes.numpy(), 3, 1)
    assert solved.folds == 3 and len(solved.curve) >= 12
    for point in solved.curve[8:12]:
        losses, hits = [], []
        for fold in range(3):
            learn, held = folds != fold, folds == fold
            model = LogisticRegression(C=1 / (learn.sum() * point.strength), tol=1e-8, max_iter=5000)
            model.fit(ready[learn], classes.numpy()[learn])
            losses.append(log_loss(classes.numpy()[held], model.predict_proba(ready[held]), labels=range(10)))
            hits.append(model.score(ready[held], classes.numpy()[held]))
        assert point.nll == pytest.approx(np.mean(losses), rel=0.02)
        assert point.accuracy == pytest.approx(np.mean(hits), abs=0.021)
    assert solved.l2 == min(solved.curve, key=lambda point: point.nll).strength
