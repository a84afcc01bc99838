"""Members of a cross-validation count by what they did on held-out images, and alike where that says nothing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from configured import settings_for

from finetune.config.settings.search_groups import CrossvalSettings
from finetune.ensembles.crossval.member_weights import fold_weights
from finetune.errors import ConfigError
from finetune.evaluation.predictions import Predictions


def fold(number: int, right: int, *, classes: int = 2) -> Predictions:
    """Return predictions of so many images, as many of each class as possible, of which so many are right."""
    targets = np.arange(number) % classes
    guesses = np.where(np.arange(number) < right, targets, (targets + 1) % classes)
    return Predictions(
        ids=np.arange(number).astype(str), paths=np.arange(number).astype(str), targets=targets,
        probabilities=np.eye(classes)[guesses] * 0.8 + 0.2 / classes, labels=tuple("abc"[:classes]), task="multiclass",
        groups=pd.DataFrame(index=range(number)),
    )  # fmt: skip


def test_weights_are_exponential_in_kappa_over_the_error_of_the_accuracy() -> None:
    found = fold_weights([fold(100, 80), fold(100, 90), fold(100, 70)], "skill")
    error = 2 * np.sqrt(0.8 * 0.2 / 100)
    kappas = np.array([0.6, 0.8, 0.4])  # twice the accuracy less 1, of two classes that are as common
    expected = np.exp(kappas / error)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-6)


def test_naming_the_commonest_class_alone_is_no_skill() -> None:
    targets = np.repeat([0, 1], [90, 10])
    guesses_of = (np.zeros(100, int), np.where(np.arange(100) < 10, 1 - targets, targets))
    common, able = (replace(fold(100, 100), targets=targets, probabilities=np.eye(2)[guesses] * 0.8 + 0.1)
                    for guesses in guesses_of)  # fmt: skip
    assert (common.right.sum(), able.right.sum()) == (90, 90)
    common_weight, able_weight = fold_weights([common, able], "skill")
    assert able_weight > 3 * common_weight


@pytest.mark.parametrize(
    ("folds", "wanted"),
    [
        ([fold(100, 80), fold(100, 90)], "equal"),
        ([fold(19, 10), fold(19, 15)], "skill"),  # too few images
        ([fold(1, 1), fold(1, 0), fold(1, 1)], "skill"),  # one left out
        ([fold(40, 40), fold(40, 40)], "skill"),
        ([fold(40, 30), fold(40, 30)], "skill"),
    ],
)
def test_members_count_alike_where_nothing_tells_them_apart(folds: list[Predictions], wanted: str) -> None:
    assert fold_weights(folds, wanted) == pytest.approx(np.full(len(folds), 1 / len(folds)))


def test_several_labels_per_image_are_counted_label_by_label() -> None:
    generator = np.random.default_rng(0)
    targets = (generator.random((60, 3)) < 0.3).astype(np.int8)
    wrong = generator.random((60, 3)) < 0.1
    good = replace(fold(60, 60, classes=3), task="multilabel", targets=targets, probabilities=targets * 0.8 + 0.1)
    poor = replace(good, probabilities=np.where(wrong, 1 - targets, targets) * 0.8 + 0.1)
    first, second = fold_weights([good, poor], "skill")
    assert first > second > 0 and first + second == pytest.approx(1)


def test_a_way_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="cv.weights=even is not one of skill, equal"):
        settings_for(CrossvalSettings, weights="even")
