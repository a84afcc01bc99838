"""LogME: how likely the labels are under the best linear model of the features, without training one."""

import math

import torch
from torch import Tensor
from torch.nn import functional

_ROUNDS = 200
_TOLERANCE = 1e-6


@torch.no_grad()
def logme(features: Tensor, targets: Tensor, num_classes: int) -> float:
    """Return the logarithm of the maximum evidence per image, a mean over classes; the higher, the better.

    Each class's indicator is explained by a linear model of the features with a Gaussian prior of precision alpha and
    noise of precision beta, both set to what makes the labels most likely; weights are integrated over. All classes
    are solved together, in the coordinates of one singular value decomposition.

    Args:
        features: Features (N, F).
        targets: Classes (N,), or multi-hot labels (N, K).
        num_classes: K.

    Source: You et al. 2021, LogME: Practical Assessment of Pre-trained Models for Transfer Learning, section 4.
    """
    indicators = functional.one_hot(targets.long(), num_classes) if targets.ndim == 1 else targets
    axes, lengths, _ = torch.linalg.svd(features.double(), full_matrices=False)
    labels = indicators.double()
    squares, curvature = (axes.T @ labels).square(), lengths.square()[:, None]
    outside = (labels.square().sum(0) - squares.sum(0)).clamp(min=0)
    return float(maximum_evidence(squares, curvature, outside, len(labels)).mean())


def maximum_evidence(squares: Tensor, curvature: Tensor, outside: Tensor, count: int) -> Tensor:
    """Return the largest logarithm of the evidence (K,), per image.

    Args:
        squares: Squared components of the labels along the features' left singular vectors (R, K).
        curvature: Squared singular values (R, 1).
        outside: Squared length of the labels' part that no weights can explain (K,).
        count: Images N.
    """
    alpha, beta = torch.ones_like(outside), torch.ones_like(outside)
    # labels that are explained without a rest would make beta infinite
    tiny = torch.finfo(outside.dtype).eps * (squares.sum(0) + outside).clamp(min=1.0)
    for _ in range(_ROUNDS):
        kept, error, weight = _explained(squares, curvature, outside, alpha, beta)
        new_alpha, new_beta = kept / weight.clamp(min=tiny), (count - kept) / error.clamp(min=tiny)
        change = ((new_alpha / new_beta).log() - (alpha / beta).log()).abs().amax()
        alpha, beta = new_alpha.clamp(min=tiny), new_beta.clamp(min=tiny)
        if change < _TOLERANCE:
            break
    _, error, weight = _explained(squares, curvature, outside, alpha, beta)
    # the determinant of the weights' precision; directions without features cancel with those of the prior
    bend = torch.log1p(curvature * beta / alpha).sum(0)
    return (count * (beta.log() - math.log(2 * math.pi)) - bend - beta * error - alpha * weight) / (2 * count)


def _explained(
    squares: Tensor, curvature: Tensor, outside: Tensor, alpha: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of weights that the labels decide, the squared error and the squared weights, each (K,)."""
    ratio = alpha / beta
    shrunk = curvature + ratio
    error = outside + (squares * (ratio / shrunk).square()).sum(0)
    return (curvature / shrunk).sum(0), error, (squares * curvature / shrunk.square()).sum(0)
