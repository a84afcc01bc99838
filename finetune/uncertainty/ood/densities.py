"""Densities of training features, for out-of-distribution scores: Mahalanobis, nearest neighbours, PCA.

Scores are higher for what is more unlike. All look at the direction of features alone, brought to length 1: the
features of images that show little are short, and would be near everything.

Source: Sun et al. 2022, Out-of-Distribution Detection with Deep Nearest Neighbors, section 3, and Mueller and Hein
2025, Mahalanobis++: Improving OOD Detection via Feature Normalization (why features are normalised).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from finetune.config.settings.run_groups import OodSettings
from finetune.data.table import LabelTask

DensityArray = npt.NDArray[np.float64]
Features64 = npt.NDArray[np.floating[Any]]
_EPSILON = 1e-6


class Density(Protocol):
    """Fitted on features of training images."""

    def score(self, features: Features64) -> DensityArray:
        """Return how unlike the training images (N,) features (N, F) are."""


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """Squared distance to the nearest class mean, by the covariance that all classes share.

    Attributes:
        whitening: (F, F) float32, unit features to a space in which the images of a class have unit covariance.
        means: (C, F) float32, of the classes, in that space.

    Source: Lee et al. 2018, A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
    Attacks, section 2.1, on the last features alone.
    """

    whitening: npt.NDArray[np.float32]
    means: npt.NDArray[np.float32]

    def score(self, features: Features64) -> DensityArray:
        """Return the squared distance (N,) of features (N, F) to the nearest mean."""
        points = _unit(features) @ self.whitening
        return np.asarray(squared_distances(points, self.means.astype(np.float64)).min(axis=1))


@dataclass(frozen=True, eq=False)
class NeighbourDensity:
    """Distance to one of the nearest training images.

    Attributes:
        bank: (M, F) float16, of the training images.
        k: () int64, which of the nearest.

    Source: Sun et al. 2022, Out-of-Distribution Detection with Deep Nearest Neighbors, section 3.
    """

    bank: npt.NDArray[np.float16]
    k: npt.NDArray[np.int64]

    def score(self, features: Features64) -> DensityArray:
        """Return the distance (N,) of features (N, F) to the k-th nearest image."""
        place = min(int(self.k), len(self.bank)) - 1
        squares = squared_distances(_unit(features), self.bank.astype(np.float64))
        return np.asarray(np.sqrt(np.partition(squares, place, axis=1)[:, place]))


@dataclass(frozen=True, eq=False)
class Components:
    """A linear autoencoder: the directions in which training images vary most, and what they leave of an image.

    Attributes:
        mean: (F,) float32.
        directions: (R, F) float32, orthonormal, the most varied first.

    Source: Baldi and Hornik 1989, Neural networks and principal component analysis (the best linear autoencoder).
    """

    mean: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]

    def reduce(self, features: Features64) -> DensityArray:
        """Return coordinates (N, R) of features (N, F) along the directions."""
        return np.asarray((_unit(features) - self.mean) @ self.directions.T.astype(np.float64))

    def score(self, features: Features64) -> DensityArray:
        """Return the length (N,) of what the directions do not reproduce of features (N, F)."""
        rest = _unit(features) - self.mean - self.reduce(features) @ self.directions
        return np.asarray(np.linalg.norm(rest, axis=1))


DENSITIES: dict[str, type[Mahalanobis] | type[NeighbourDensity] | type[Components]] = {
    "mahalanobis": Mahalanobis,
    "knn": NeighbourDensity,
    "pca": Components,
}


def fit_density(features: Features64, targets: npt.NDArray[Any], settings: OodSettings, task: LabelTask) -> Density:
    """Return the density of features (M, F) of images with targets (M,), or (M, K) for several labels."""
    if settings.kind == "mahalanobis":
        return fit_mahalanobis(features, targets if task == "multiclass" else np.zeros(len(features), np.int64))
    if settings.kind == "knn":
        return NeighbourDensity(_unit(features).astype(np.float16), np.asarray(settings.neighbours, np.int64))
    assert settings.variance is not None
    return fit_components(features, settings.variance)


def fit_mahalanobis(features: Features64, classes: npt.NDArray[np.int64]) -> Mahalanobis:
    """Return class means and a covariance of features (M, F), shrunk since there may be fewer images than features.

    A class that has no image has no mean. Each feature keeps its own scale: to divide by deviations made directions
    count in which images hardly vary, and told unlike images less well.

    Source: Ledoit and Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices (how much).
    """
    from scipy.linalg import cholesky, solve_triangular
    from sklearn.covariance import ledoit_wolf

    values = _unit(features)
    known, places = np.unique(classes, return_inverse=True)
    means = np.stack([values[places == place].mean(axis=0) for place in range(len(known))])
    covariance, _ = ledoit_wolf(values - means[places], assume_centered=True)
    floor = _EPSILON * max(float(np.trace(covariance)) / len(covariance), _EPSILON)  # where classes have one image each
    lower = cholesky(covariance + floor * np.eye(len(covariance)), lower=True)
    whitening = solve_triangular(lower, np.eye(len(covariance)), lower=True).T.astype(np.float32)
    return Mahalanobis(whitening, (means @ whitening).astype(np.float32))


def fit_components(features: Features64, variance: float) -> Components:
    """Return the fewest directions that hold a share of the variance of features (M, F); at least one."""
    from sklearn.decomposition import PCA

    fitted = PCA(n_components=variance, svd_solver="full").fit(_unit(features))
    return Components(fitted.mean_.astype(np.float32), fitted.components_.astype(np.float32))


def _unit(features: Features64) -> DensityArray:
    """Return features (N, F) of length 1."""
    values = features.astype(np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), _EPSILON))


def squared_distances(points: DensityArray, others: DensityArray) -> DensityArray:
    """Return the squared distances (N, M) of points (N, F) to others (M, F), by a product, which is fast."""
    squares = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * points @ others.T, 0))
