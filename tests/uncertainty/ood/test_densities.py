"""Scores of features and logits are those of their formulas and of scikit-learn; settings that mean nothing fail."""

from typing import Any

import numpy as np
import pytest
from configured import settings_for
from scipy.special import expit
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from finetune.config.settings.run_groups import OodSettings
from finetune.errors import ConfigError
from finetune.uncertainty.ood.densities import Components, Mahalanobis, fit_density
from finetune.uncertainty.ood.logit_scores import energy, msp
from finetune.uncertainty.ood.settings import check_ood_settings

GENERATOR = np.random.default_rng(0)
CLASSES = GENERATOR.integers(0, 3, 90)
FEATURES = (3 * np.eye(8)[CLASSES] + GENERATOR.normal(size=(90, 8))).astype(np.float32)
NEW = GENERATOR.normal(scale=3, size=(20, 8)).astype(np.float32)
UNIT, UNIT_NEW = (normalize(part.astype(np.float64)) for part in (FEATURES, NEW))


def test_mahalanobis_is_the_distance_by_the_shrunk_covariance_within_classes() -> None:
    found = fit_density(FEATURES, CLASSES, settings_for(OodSettings, "mahalanobis"), "multiclass")
    means = np.stack([UNIT[k == CLASSES].mean(axis=0) for k in range(3)])
    estimate = LedoitWolf(assume_centered=True).fit(UNIT - means[CLASSES])
    expected = np.min([estimate.mahalanobis(UNIT_NEW - mean) for mean in means], axis=0)
    np.testing.assert_allclose(found.score(NEW), expected, rtol=1e-3)


def test_mahalanobis_of_several_labels_knows_one_mean() -> None:
    targets = GENERATOR.integers(0, 2, (90, 3))
    found = fit_density(FEATURES, targets, settings_for(OodSettings, "mahalanobis"), "multilabel")
    expected = LedoitWolf().fit(UNIT).mahalanobis(UNIT_NEW)
    np.testing.assert_allclose(found.score(NEW), expected, rtol=1e-3)


def test_mahalanobis_needs_no_more_images_than_features_and_no_image_of_each_class() -> None:
    found = fit_density(FEATURES[:4], np.array([0, 2, 5, 5]), settings_for(OodSettings, "mahalanobis"), "multiclass")
    assert isinstance(found, Mahalanobis) and len(found.means) == 3
    assert np.isfinite(found.score(NEW)).all()
    single = fit_density(FEATURES[:2], np.array([0, 1]), settings_for(OodSettings, "mahalanobis"), "multiclass")
    assert np.isfinite(single.score(NEW)).all()


def test_neighbours_are_those_of_scikit_learn_on_unit_features() -> None:
    found = fit_density(FEATURES, CLASSES, settings_for(OodSettings, "knn", neighbours=4), "multiclass")
    reference = NearestNeighbors(n_neighbors=4).fit(UNIT)
    expected = reference.kneighbors(UNIT_NEW)[0][:, -1]
    np.testing.assert_allclose(found.score(NEW), expected, atol=2e-3)  # the bank is kept in half precision


def test_more_neighbours_than_images_are_all_of_them() -> None:
    found = fit_density(FEATURES[:3], CLASSES[:3], settings_for(OodSettings, "knn", neighbours=10), "multiclass")
    expected = np.linalg.norm(UNIT_NEW[:, None] - UNIT[:3], axis=2).max(axis=1)
    np.testing.assert_allclose(found.score(NEW), expected, atol=2e-3)


def test_components_reduce_and_rebuild_as_scikit_learn_does() -> None:
    found = fit_density(FEATURES, CLASSES, settings_for(OodSettings, "pca", variance=0.8), "multiclass")
    reference = PCA(0.8, svd_solver="full").fit(UNIT)
    assert isinstance(found, Components)
    np.testing.assert_allclose(found.reduce(NEW), reference.transform(UNIT_NEW), atol=1e-4)
    rebuilt = reference.inverse_transform(reference.transform(UNIT_NEW))
    np.testing.assert_allclose(found.score(NEW), np.linalg.norm(UNIT_NEW - rebuilt, axis=1), rtol=1e-4)


def test_energy_and_probability_are_their_formulas() -> None:
    logits = NEW.astype(np.float64)
    powers = np.exp(logits)
    np.testing.assert_allclose(energy(logits, "multiclass"), -np.log(powers.sum(axis=1)))
    np.testing.assert_allclose(energy(logits, "multilabel"), np.log(1 - expit(logits)).sum(axis=1))
    np.testing.assert_allclose(msp(logits), 1 - (powers / powers.sum(axis=1, keepdims=True)).max(axis=1))
    assert np.isfinite(energy(np.array([[1e4, -1e4]], np.float32), "multilabel")).all()


@pytest.mark.parametrize(
    ("settings", "task", "expected"),
    [
        ({"kind": "mahalanobiss"}, "multiclass", "Did you mean 'mahalanobis'"),
        ({"kind": "msp"}, "multilabel", "ood=msp needs one label per image"),
        ({"kind": "energy", "tpr": 1.0}, "multiclass", "ood.tpr=1.0 must be above 0 and below 1"),
        ({"kind": "energy", "neighbours": 3}, "multiclass", "choose ood=knn"),
        ({"kind": "knn"}, "multiclass", "Set ood.neighbours="),
        ({"kind": "knn", "neighbours": 0}, "multiclass", "must be a whole number of 1 or more"),
        ({"kind": "pca", "variance": 1.5}, "multiclass", "ood.variance=1.5"),
        ({"kind": "energy", "images": 1}, "multiclass", "ood.images=1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], task: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_ood_settings(settings_for(OodSettings, **settings), task)  # type: ignore[arg-type]
