"""Nearest class mean: an image belongs to the class whose mean features are nearest, by distance or by angle."""

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

_SCALES = (-20.0, 10.0)  # logarithms between which the scale of the logits is looked for


def class_means(features: Tensor, classes: Tensor, weights: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of features of each class (K, F) and its weight (K,).

    Args:
        features: Features (N, F).
        classes: Classes (N,).
        weights: Weight of each image (N,).
        num_classes: K.
    """
    total = features.new_zeros(num_classes, features.shape[1]).index_add_(0, classes, features * weights[:, None])
    return total, features.new_zeros(num_classes).index_add_(0, classes, weights)


def nearest_means(features: Tensor, classes: Tensor, weights: Tensor, num_classes: int) -> tuple[Tensor, Tensor, float]:
    """Return weights (K, F), biases (K,) and scale of a linear head that prefers the class with the nearest mean.

    The logits are minus half the squared distances, but for a number that all classes share, times the scale, which
    makes images most likely when each is judged by means it has no part in.

    Args:
        features: Features (N, F) as the linear layer sees them.
        classes: Classes (N,).
        weights: Weight of each image (N,).
        num_classes: K.

    Source: Mensink et al. 2013, Distance-Based Image Classification, section 3.2.
    """
    total, size = class_means(features, classes, weights, num_classes)
    means = total / size.clamp(min=torch.finfo(size.dtype).tiny)[:, None]
    distances = torch.cdist(features, means, compute_mode="donot_use_mm_for_euclid_dist").square()
    own, rest = classes[:, None], size[classes] - weights
    kept = rest > 1e-9 * size[classes]
    growth = (size[classes] / torch.where(kept, rest, 1.0)).square()
    without = distances.scatter(1, own, distances.gather(1, own) * growth[:, None])
    scale = best_scale(-without[kept] / 2, classes[kept], weights[kept])
    return scale * means, -scale * means.square().sum(1) / 2, scale


def imprinted(features: Tensor, classes: Tensor, weights: Tensor, num_classes: int) -> tuple[Tensor, float]:
    """Return class vectors (K, F) and the scale of a cosine head: the means of each class's normalised features.

    The scale makes images most likely when each is judged by means it has no part in.

    Args:
        features: Features (N, F) as the cosine layer sees them.
        classes: Classes (N,).
        weights: Weight of each image (N,).
        num_classes: K.

    Source: Qi et al. 2018, Low-Shot Learning with Imprinted Weights, section 3.2.
    """
    unit = functional.normalize(features, dim=1)
    total, size = class_means(unit, classes, weights, num_classes)
    along, lengths = unit @ total.T, total.norm(dim=1)
    cosines = along / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
    own, kept = classes[:, None], size[classes] - weights > 1e-9 * size[classes]
    rest = (lengths[classes].square() - 2 * weights * along.gather(1, own)[:, 0] + weights.square()).clamp(min=0).sqrt()
    others = (along.gather(1, own)[:, 0] - weights) / torch.where(rest > 0, rest, 1.0)
    without = cosines.scatter(1, own, others[:, None])
    return functional.normalize(total, dim=1), best_scale(without[kept], classes[kept], weights[kept])


def best_scale(logits: Tensor, classes: Tensor, weights: Tensor) -> float:
    """Return the factor of logits (N, K) that makes the classes (N,) most likely; 1 where there is no image."""
    if not len(classes):
        return 1.0

    def loss(logarithm: float) -> float:
        losses = functional.cross_entropy(math.exp(logarithm) * logits, classes, reduction="none")
        return float((losses * weights).sum() / weights.sum())

    return math.exp(minimize_scalar(loss, bounds=_SCALES, method="bounded", options={"xatol": 1e-4}).x)
