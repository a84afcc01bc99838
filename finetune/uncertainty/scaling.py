"""Temperature and vector scaling: logits scaled so that probabilities can be taken literally.

Fitted on validation images, and left out where held-out images are not better with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.errors import ConfigError, nearest

Method = Literal["none", "temperature", "vector"]
METHODS: tuple[Method, ...] = ("none", "temperature", "vector")
_FOLDS = 5
# a normal prior: how far the logarithm of a scale, and a shift, may be from 0 without evidence
_SPREAD = 1.0
_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Scaling:
    """How logits are scaled.

    Attributes:
        method: none, temperature or vector.
        scale: What logits are multiplied by: one number, or one for each label (K,).
        shift: What is added: nothing, or one number for each label (K,).
    """

    method: Method = "none"
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)

    @property
    def temperature(self) -> float | None:
        """What logits are divided by; None where it is not one number."""
        return 1 / self.scale[0] if len(self.scale) == 1 else None

    def apply(self, logits: _Array, *, multilabel: bool) -> _Array:
        """Return logits (N, K), scaled; several views (V, N, K) are joined before, so that one scale moves no answer.

        Without a method they are returned as they are, views and all.
        """
        if self.method == "none":
            return logits
        return np.asarray(_joined(logits, multilabel=multilabel) * np.asarray(self.scale) + np.asarray(self.shift))


@dataclass(frozen=True)
class FittedScaling:
    """A scaling and what it is worth.

    Attributes:
        scaling: What is used.
        tried: The method that was asked for.
        before: Mean loss of held-out images without it.
        after: Mean loss of held-out images with it, fitted on the others.
        note: What there is to say.
    """

    scaling: Scaling
    tried: Method
    before: float
    after: float
    note: str


def check_calibration_method(method: str) -> Method:
    """Return the method of that name.

    Raises:
        ConfigError: There is none.
    """
    for known in METHODS:
        if known == method:
            return known
    raise ConfigError(f"calibration={method} is not one of {', '.join(METHODS)}.{nearest(method, METHODS)}")


def fit_scaling(logits: _Array, targets: _Array, method: Method, *, multilabel: bool, seed: int = 0) -> FittedScaling:
    """Return a scaling of logits, or none where images that were held out are not better with it.

    The loss is minimised together with a normal prior on scales and shifts, which keeps few images from making a
    network very sure. Where all of them are right, being surer is better on each of them, held out or not, and nothing
    shows how sure it may be: such a scaling is not used.

    Args:
        logits: (N, K), or (V, N, K) for images in several views.
        targets: (N,) label numbers, or (N, K) of 0 and 1.
        method: none, temperature or vector.
        multilabel: Whether an image may have several labels.
        seed: Deals the images out to folds.

    Source: Guo et al. 2017, On calibration of modern neural networks, section 4.2.
    """
    values = _joined(logits, multilabel=multilabel)
    number = len(values)
    if method == "none" or number < _FOLDS:
        note = "" if method == "none" else f"{number} validation images are too few to calibrate on."
        return FittedScaling(Scaling(), method, float("nan"), float("nan"), note)
    folds = np.random.default_rng(seed).permutation(number) % _FOLDS
    losses = np.zeros((2, number))
    for fold in range(_FOLDS):
        rest, held = folds != fold, folds == fold
        found = fit_by_minimum(values[rest], targets[rest], method, multilabel=multilabel)
        for place, scaling in enumerate((Scaling(), found)):
            scaled = scaling.apply(values[held], multilabel=multilabel)
            losses[place, held] = losses_of(scaled, targets[held], multilabel=multilabel)
    before, after = (float(part.mean()) for part in losses)
    if not after < before:
        note = "Probabilities are left as they are: scaled ones did not fit held-out validation images better."
        return FittedScaling(Scaling(), method, before, after, note)
    found = fit_by_minimum(values, targets, method, multilabel=multilabel)
    answers = values > 0 if targets.ndim == 2 else values.argmax(1)
    if max(found.scale) > 1 and (answers == targets).all():
        note = "Probabilities are left as they are: all validation images are right, so none shows how sure to be."
        return FittedScaling(Scaling(), method, before, after, note)
    return FittedScaling(found, method, before, after, "")


def _joined(logits: _Array, *, multilabel: bool) -> _Array:
    """Return float64 logits (N, K) whose probabilities are the mean of those of all views (V, N, K).

    Those of one label per image have mean 0 over the labels: what all have in common means nothing, and scales of
    single labels would turn it into something.
    """
    values = torch.from_numpy(logits.astype(np.float64))
    if multilabel and values.ndim == 3:
        held, not_held = (torch.logsumexp(nn.functional.logsigmoid(part), dim=0) for part in (values, -values))
        values = held - not_held
    elif values.ndim == 3:
        values = torch.logsumexp(values.log_softmax(dim=-1), dim=0)
    return np.asarray((values if multilabel else values - values.mean(dim=-1, keepdim=True)).numpy())


def fit_by_minimum(logits: _Array, targets: _Array, method: Method, *, multilabel: bool) -> Scaling:
    """Return the scaling with the least loss on images (N, K)."""
    labels = logits.shape[1]
    size = 1 if method == "temperature" else labels
    values, truth = torch.from_numpy(logits), torch.from_numpy(targets.astype(np.int64))

    def objective(parameters: Tensor) -> Tensor:
        scale, shift = parameters[:size].exp(), parameters[size:] if method == "vector" else 0.0
        loss = loss_of(values * scale + shift, truth, multilabel=multilabel).sum()
        return loss + (parameters**2).sum() / (2 * _SPREAD**2)

    found = minimum(objective, size if method == "temperature" else 2 * labels)
    scale = tuple(np.exp(found[:size]).tolist())
    shift = tuple(found[size:].tolist()) if method == "vector" else (0.0,)
    return Scaling(method, scale, shift)


def minimum(objective: Callable[[Tensor], Tensor], size: int) -> _Array:
    """Return where a smooth function of so many parameters is least, from 0 on."""
    from scipy.optimize import minimize

    def both(point: _Array) -> tuple[float, _Array]:
        parameters = torch.from_numpy(np.asarray(point)).requires_grad_(True)
        value = objective(parameters)
        (slope,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), slope.numpy()

    return np.asarray(minimize(both, np.zeros(size), jac=True, method="L-BFGS-B", bounds=[(-4, 4)] * size).x)


def loss_of(values: Tensor, targets: Tensor, *, multilabel: bool) -> Tensor:
    """Return the loss (N,) of logits (N, K): of the label, or the mean over all labels."""
    if multilabel:
        each = nn.functional.binary_cross_entropy_with_logits(values, targets.to(values.dtype), reduction="none")
        return each.mean(dim=1)
    return nn.functional.cross_entropy(values, targets, reduction="none")


def losses_of(logits: _Array, targets: _Array, *, multilabel: bool) -> _Array:
    """Return `loss_of` arrays."""
    values, truth = torch.from_numpy(logits.astype(np.float64)), torch.from_numpy(targets.astype(np.int64))
    return np.asarray(loss_of(values, truth, multilabel=multilabel).numpy())
