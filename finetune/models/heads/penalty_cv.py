"""Penalty strength by cross-validation on the training images alone."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune.data.fold_assignment import assign_folds
from finetune.models.heads.lbfgs import LbfgsSolution
from finetune.models.heads.logistic_loss import ClassTargets, LogisticObjective

log = logging.getLogger(__name__)

_STRENGTHS = 30
_TOGETHER = 6  # strengths that are solved together, the weaker ones from where the stronger ones ended
# fits an objective with strengths (P,), from weights or from nothing
Fit = Callable[[LogisticObjective, Tensor, Tensor | None], LbfgsSolution]


@dataclass(frozen=True)
class PenaltyScore:
    """How a strength does on held-out images.

    Attributes:
        strength: The strength.
        nll: Mean negative log-likelihood, weighted as in training.
        error: Standard error of that mean over the folds.
        accuracy: Share of right predictions, weighted likewise.
        accuracy_error: Standard error of that share over the folds.
    """

    strength: float
    nll: float
    error: float
    accuracy: float
    accuracy_error: float


@dataclass(frozen=True)
class PenaltyChoice:
    """The strength with the least negative log-likelihood, and all that were tried, strongest first."""

    strength: float
    curve: tuple[PenaltyScore, ...]
    folds: int


def make_label_folds(
    labels: npt.NDArray[np.int64], folds: int, seed: int, groups: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """Return the fold (N,) in which each image is held out, -1 for an image that is never held out.

    Each class is spread over the folds. There are no more folds than images, or groups, of the smallest class that has
    two or more; the only image of a class is never held out, since nothing could learn it then.

    Args:
        labels: Class of each image (N,); for several labels per image, the rarest.
        folds: Number of folds wanted, 2 or more.
        seed: Seeds the order in which images are dealt out.
        groups: Group of each image (N,), which is not parted; None for none.
    """
    units = np.arange(len(labels)) if groups is None else groups
    sizes = {label: len(np.unique(units[labels == label])) for label in np.unique(labels)}
    alone = np.array([label for label, size in sizes.items() if size < 2], dtype=labels.dtype)
    few = max(2, min([folds, *(size for size in sizes.values() if size > 1)]))
    report_folds(few, folds, len(alone), len(sizes), "images" if groups is None else "groups")
    result = np.full(len(labels), -1, dtype=np.int64)
    free = ~np.isin(labels, alone) if groups is None else np.ones(len(labels), dtype=bool)
    if len(np.unique(units[free])) < few:
        return result
    rows = free.nonzero()[0]
    spread = groups is None or len(alone) < len(sizes)  # else there is nothing to spread
    parts = None if groups is None else groups[rows]
    result[rows] = assign_folds(labels[rows], parts, few, seed, stratified=spread)
    return result


def report_folds(folds: int, wanted: int, alone: int, classes: int, units: str) -> None:
    """Log what the classes' sizes do to the folds."""
    if folds < wanted:
        log.info("The smallest class has too few %s for %d folds: the cross-validation has %d.", units, wanted, folds)
    if alone:
        log.warning(
            "%d of %d classes have fewer than 2 training %s: how well they are recognised has no part in choosing the "
            "strength.", alone, classes, units,
        )  # fmt: skip


def rarest_label(labels: Tensor) -> Tensor:
    """Return the rarest label (N,) of each image's labels (N, K); K for an image without any."""
    counts = (labels > 0.5).sum(0)
    worth = torch.where(labels > 0.5, counts, len(labels) + 1)
    return torch.where((labels > 0.5).any(1), worth.argmin(1), labels.shape[1])


def strengths_below(largest: float, ratio: float) -> list[float]:
    """Return strengths from the largest down to that times the ratio, equally far apart in their logarithms."""
    return [largest * ratio ** (index / (_STRENGTHS - 1)) for index in range(_STRENGTHS)]


def choose_strength(
    objective: LogisticObjective, truth: ClassTargets, folds: npt.NDArray[np.int64], strengths: list[float], fit: Fit
) -> PenaltyChoice:
    """Return the strength with the least held-out negative log-likelihood.

    All folds of some strengths are solved at once, from strong to weak. Once none of them is better than the best so
    far, the still weaker ones, which take longest, are left out: held-out loss falls and then rises along them.

    Args:
        objective: The problem on all training images, (N, 1) weights.
        truth: Targets that predictions are held against.
        folds: From `make_label_folds`; some image is held out.
        strengths: Strongest first.
        fit: Solves problems.
    """
    device = objective.weights.device
    number = int(folds.max()) + 1
    member = torch.from_numpy(folds).to(device)[:, None] == torch.arange(number, device=device)
    learn, shares = normalised(objective.weights * ~member), (objective.weights * member).sum(0)
    held = normalised(objective.weights * member)
    points: list[PenaltyScore] = []
    start: Tensor | None = None
    for first in range(0, len(strengths), _TOGETHER):
        block = strengths[first : first + _TOGETHER]
        problems = replace(objective, weights=learn.repeat(1, len(block)))
        wanted = torch.tensor(block, dtype=learn.dtype, device=device).repeat_interleave(number)
        solution = fit(problems, wanted, None if start is None else start.repeat(1, 1, len(block)))
        losses, hits = problems.score(solution.weight, truth, held.repeat(1, len(block)))
        start = solution.weight[:, :, -number:]
        new = [
            summarise(*row, shares) for row in zip(block, losses.view(-1, number), hits.view(-1, number), strict=True)
        ]
        found = min([*points, *new], key=lambda point: point.nll)
        if points and found in points:
            points += new
            break
        points += new
    best = min(points, key=lambda point: point.nll)
    if best.strength in (strengths[0], strengths[-1]):  # a weaker or stronger one might have been better still
        log.info("The best strength, %.3g, is at the end of those tried (%.3g to %.3g).",
                 best.strength, strengths[0], strengths[-1])  # fmt: skip
    return PenaltyChoice(best.strength, tuple(points), number)


def normalised(weights: Tensor) -> Tensor:
    """Return weights (N, P) whose columns sum to 1; a column of zeros stays one."""
    total = weights.sum(0)
    return weights / torch.where(total > 0, total, 1.0)


def summarise(strength: float, losses: Tensor, hits: Tensor, shares: Tensor) -> PenaltyScore:
    """Return the mean over folds of losses and hits (folds,), each by its share of the held-out weight."""
    shares = shares / shares.sum()
    errors = [float(values.std(correction=1)) / len(values) ** 0.5 for values in (losses, hits)]
    return PenaltyScore(strength, float(losses @ shares), errors[0], float(hits @ shares), errors[1])
