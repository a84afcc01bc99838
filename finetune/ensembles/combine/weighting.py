"""Member weights: equal, by greedy selection, or learnt by a stacking model."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from finetune.errors import DataError
from finetune.evaluation.fold_scores import with_probabilities
from finetune.evaluation.predictions import Predictions
from finetune.models.ensemble_network import scores_of

_Array = npt.NDArray[np.float64]
_STRENGTHS = tuple(10.0**power for power in range(-4, 3))
_FOLDS = 5


def greedy_weights(
    members: Sequence[Predictions], judge: Callable[[Predictions], tuple[float, float]], rounds: int
) -> _Array:
    """Return weights (M,) from selecting members one by one, each as often as it helps, on validation.

    The first is the best; each further one is that with which the mean of probabilities is judged best. Of all rounds
    the best is kept, the earliest of equals, so that the ensemble is never judged worse than its best member.

    Args:
        members: Their predictions of the same images (M).
        judge: Gives a score, and another that decides between equals; both are better when higher.
        rounds: How many members are selected at most.

    Source: Caruana et al. 2004, Ensemble Selection from Libraries of Models, sections 2 and 2.1 (with replacement).
    """
    stack = np.stack([each.probabilities.astype(np.float64) for each in members])
    counts = np.zeros(len(members), np.int64)
    total = np.zeros_like(stack[0])
    best: tuple[tuple[float, float], _Array] | None = None
    for step in range(1, rounds + 1):
        judged = [judge(with_probabilities(members[0], (total + part) / step)) for part in stack]
        chosen = max(range(len(members)), key=lambda number: judged[number])
        counts[chosen] += 1
        total += stack[chosen]
        if best is None or judged[chosen] > best[0]:
            best = judged[chosen], counts / step
    assert best is not None
    return best[1]


def stacking_layer(members: Sequence[Predictions], seed: int) -> tuple[Tensor, Tensor]:
    """Return weight (K, M * K) and bias (K,) of a logistic regression on what all members say of validation images.

    Its inputs are logarithms of probabilities, or log-odds where an image may have several labels; the strength of its
    penalty is chosen by cross-validation on the same images.

    Args:
        members: Their predictions of the same images (M).
        seed: Deals images out to folds.

    Raises:
        DataError: A class has too few images to learn from.

    Source: Wolpert 1992, Stacked Generalization; Ting and Witten 1999, Issues in Stacked Generalization, section 3.
    """
    first = members[0]
    inputs = scores_of(np.stack([each.probabilities for each in members]), multilabel=first.multilabel)
    values = inputs.transpose(0, 1).flatten(1).double().numpy()
    if first.multilabel:
        parts = [fit_stacking(values, first.targets[:, label], seed, name) for label, name in enumerate(first.labels)]
        weight, bias = (np.stack([part[place][0] for part in parts]) for place in (0, 1))
        return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
    missing = [name for number, name in enumerate(first.labels) if (first.targets == number).sum() < 2]
    if missing:
        raise DataError(
            f"method=stacking learns from validation images, and '{missing[0]}' has fewer than 2. Use method=greedy or "
            "mean, or enlarge data.splits.val."
        )
    weight, bias = fit_stacking(values, first.targets, seed, "")
    if len(first.labels) == 2:  # of the second label against the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


def fit_stacking(values: _Array, targets: npt.NDArray[np.int64], seed: int, label: str) -> tuple[_Array, _Array]:
    """Return coefficients and intercepts of a logistic regression whose strength does well on held-out images.

    It is the strongest penalty whose loss is within a standard error of the least: validation images are few.

    Raises:
        DataError: There are too few images of a class.

    Source: Breiman et al. 1984, Classification and Regression Trees, section 3.4.3 (rule of one standard error).
    """
    counts = np.bincount(targets, minlength=2)
    least = int(counts.min() if label else counts[counts > 0].min())
    if least < 2:
        raise DataError(
            f"method=stacking learns from validation images, and fewer than 2 have, or lack, '{label}'. Use "
            "method=greedy."
        )
    folds = list(StratifiedKFold(min(_FOLDS, least), shuffle=True, random_state=seed).split(values, targets))
    losses = np.stack([held_out_losses(values, targets, strength, folds) for strength in _STRENGTHS])
    means = losses.mean(axis=1)
    best = int(means.argmin())
    limit = means[best] + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    chosen = next(strength for strength, mean in zip(_STRENGTHS, means.tolist(), strict=True) if mean <= limit)
    model = LogisticRegression(C=chosen, max_iter=2000).fit(values, targets)
    return np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)


def held_out_losses(
    values: _Array,
    targets: npt.NDArray[np.int64],
    strength: float,
    folds: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
) -> _Array:
    """Return the loss (N,) of each image, held out, at a strength."""
    losses = np.empty(len(targets))
    for rest, held in folds:
        model = LogisticRegression(C=strength, max_iter=2000).fit(values[rest], targets[rest])
        said = model.predict_proba(values[held])
        place = {number: column for column, number in enumerate(model.classes_.tolist())}
        right = said[np.arange(len(held)), [place[number] for number in targets[held].tolist()]]
        losses[held] = -np.log(right.clip(min=1e-12))
    return losses
