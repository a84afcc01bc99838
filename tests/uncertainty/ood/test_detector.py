"""A threshold accepts as many new images as promised, and a detector is the same after it was stored."""

from pathlib import Path

import numpy as np
import pytest
from configured import settings_for

from finetune.config.settings.run_groups import OodSettings
from finetune.errors import ConfigError
from finetune.uncertainty.ood.detector import (
    Detector,
    FeaturesAndLogits,
    acceptance_threshold,
    can_guarantee,
    check_components,
    fit_detector,
)
from finetune.uncertainty.ood.detector import load_detector as load
from finetune.uncertainty.ood.detector import save_detector as save

GENERATOR = np.random.default_rng(1)
CLASSES = GENERATOR.integers(0, 3, 200)
SETTINGS = {
    "mahalanobis": settings_for(OodSettings, "mahalanobis"),
    "knn": settings_for(OodSettings, "knn", neighbours=3),
    "pca": settings_for(OodSettings, "pca", variance=0.8),
    "energy": settings_for(OodSettings, "energy", tpr=0.9),
    "msp": settings_for(OodSettings, "msp"),
}


def features(number: int) -> np.ndarray:
    """Return features that lie in about one direction, as pooled features do, and vary most along three axes."""
    return GENERATOR.normal(4, [2, 2, 2, 0.2, 0.2, 0.2], size=(number, 6)).astype(np.float32)


def seen(number: int) -> FeaturesAndLogits:
    """Return features and logits of images as the training images are."""
    return FeaturesAndLogits(features(number), GENERATOR.normal(size=(number, 4)))


def fitted(kind: str) -> Detector:
    """Return a detector of 200 training and 99 validation images."""
    return fit_detector(SETTINGS[kind], "multiclass", seen(99), (features(200), CLASSES))


def test_new_images_are_accepted_as_often_as_promised() -> None:
    shares = [
        float((GENERATOR.normal(size=500) <= acceptance_threshold(GENERATOR.normal(size=99), 0.95)).mean())
        for _ in range(400)
    ]
    spread = np.sqrt(0.95 * 0.05 * (1 / 101 + 1 / 500) / 400)  # of a beta distribution and of the new images
    assert abs(np.mean(shares) - 0.95) < 3 * spread


def test_the_threshold_is_the_score_of_an_image_and_too_few_promise_nothing() -> None:
    scores = np.arange(99.0)
    assert acceptance_threshold(scores, 0.95) == 94.0  # the 95th of 99: 95 of 100 places for a new one are not above it
    assert acceptance_threshold(scores[:5], 0.95) == 4.0
    assert can_guarantee(19, 0.95) and not can_guarantee(18, 0.95)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_detector_is_the_same_after_it_was_stored(tmp_path: Path, kind: str) -> None:
    before, images = fitted(kind), seen(30)
    save(before, tmp_path)
    after = load(tmp_path)
    assert after is not None and after.document() == before.document()
    np.testing.assert_array_equal(after.score(images), before.score(images))
    assert before.held_out == 99 and before.fitted_on == (200 if before.needs_features else 0)
    save(None, tmp_path)
    assert load(tmp_path) is None


def test_far_images_are_unlike_and_near_ones_are_not() -> None:
    for kind in ("mahalanobis", "knn", "pca"):
        detector, near = fitted(kind), seen(400)
        assert near.features is not None
        far = FeaturesAndLogits(near.features + np.array([0, 0, 0, 30, -30, 30], np.float32), near.logits)
        assert detector.is_ood(detector.score(far)).mean() >= 0.99
        assert detector.is_ood(detector.score(near)).mean() < 0.12


def test_logits_of_several_views_score_their_mean() -> None:
    detector = fitted("energy")
    views = GENERATOR.normal(size=(3, 7, 4))
    expected = np.mean([-np.log(np.exp(view).sum(axis=1)) for view in views], axis=0)
    np.testing.assert_allclose(detector.score(FeaturesAndLogits(None, views)), expected)


def test_coordinates_need_components() -> None:
    assert check_components(None, 0) == 0 and check_components(fitted("pca"), 2) == 2
    with pytest.raises(ConfigError, match="trained with ood=pca; this one has ood=knn"):
        check_components(fitted("knn"), 2)
    with pytest.raises(ConfigError, match="this one has ood=none"):
        check_components(None, 2)
    with pytest.raises(ConfigError, match="Use 1 to"):
        check_components(fitted("pca"), 7)
