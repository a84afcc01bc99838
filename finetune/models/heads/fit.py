"""Fitting a head at once: statistics, strength, weights and what there is to say about them."""

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.data.table import LabelTask
from finetune.errors import ConfigError
from finetune.models.heads.boosting import BoostedTrees, fit_boosted
from finetune.models.heads.l1 import largest_l1, minimise_l1
from finetune.models.heads.lbfgs import LbfgsSolution, minimise_lbfgs
from finetune.models.heads.logistic_loss import (
    ClassTargets,
    DesignMatrix,
    LogisticObjective,
    collapse,
    expand_weights,
    make_design,
    sigmoid_targets,
    softmax_targets,
)
from finetune.models.heads.modules import CosineLinear, HeadSpec, standardize_layer
from finetune.models.heads.nearest_class_mean import imprinted, nearest_means
from finetune.models.heads.penalty_cv import (
    Fit,
    PenaltyChoice,
    PenaltyScore,
    choose_strength,
    make_label_folds,
    normalised,
    rarest_label,
    strengths_below,
)
from finetune.models.heads.settings import SolverSettings, check_solver_task

# while strengths are compared, and in the end: how far a smooth value may be above the least, and how far the slopes of
# a sparse solution may be off, as a share of l1
GAPS, SLACKS = (1e-4, 1e-8), (3e-2, 3e-4)
# strengths that are tried: of the mean squared length of the features, and of the least l1 that leaves nothing
L2_RANGE, L1_RATIO = (1e-7, 1e-1), 1e-2


@dataclass(frozen=True)
class SolvedHead:
    """What there is to say about a solved head.

    Attributes:
        solver: lbfgs, proximal, nearest_mean or adaboost.
        l2: Strength of the squared penalty.
        l1: Strength of the penalty on absolute weights.
        iterations: Steps of the final fit.
        converged: Whether these reached the tolerance.
        seconds: How long all of it took.
        zeros: Share of weights that are exactly zero.
        folds: Folds of the cross-validation, 0 where there was none.
        curve: The strengths that were tried, strongest first.
        scale: Of class means: what the logits are multiplied by; else None.
    """

    solver: str
    l2: float
    l1: float
    iterations: int
    converged: bool
    seconds: float
    zeros: float
    folds: int = 0
    curve: tuple[PenaltyScore, ...] = ()
    scale: float | None = None


@dataclass(frozen=True)
class HeadExamples:
    """Training images as a solver takes them.

    Attributes:
        features: Features (N, F).
        targets: Classes (N,), or class probabilities or multi-hot labels (N, K).
        task: multiclass or multilabel.
        num_classes: K.
        sample_weights: Weight of each image (N,); None where all are 1.
        class_weights: Weight of each class (K,), as the loss means it; None where all are 1.
        smoothing: Label smoothing, as the loss means it.
        groups: Group of each image (N,), which folds do not part; None for none.
        chunk: Rows of features that are in memory at a time; None for all.
    """

    features: Tensor
    targets: Tensor
    task: LabelTask
    num_classes: int
    sample_weights: Tensor | None = None
    class_weights: Tensor | None = None
    smoothing: float = 0.0
    groups: npt.NDArray[np.int64] | None = None
    chunk: int | None = None

    def loss_targets(self, smoothing: float) -> ClassTargets:
        """Return what the solver fits, or what predictions are held against, where nothing is smoothed."""
        if self.task == "multilabel":
            targets = sigmoid_targets(self.targets, smoothing, self.class_weights)
        else:
            targets = softmax_targets(self.targets, self.num_classes, smoothing, self.class_weights)
        return collapse(targets).to(self.like)

    @property
    def like(self) -> Tensor:
        """An empty tensor of the device and the precision in which problems are solved."""
        dtype = torch.float64 if self.features.dtype == torch.float64 else torch.float32
        return torch.empty(0, dtype=dtype, device=self.features.device)

    def weights(self) -> Tensor:
        """Return the weight of each image (N,), which for hard classes is that of its class as well."""
        weights = torch.ones(len(self.features)) if self.sample_weights is None else self.sample_weights
        weights = weights.to(self.like)
        if self.class_weights is not None and self.task == "multiclass" and self.targets.ndim == 1:
            weights = weights * self.class_weights.to(weights)[self.targets.long()]
        return weights

    def strata(self) -> npt.NDArray[np.int64]:
        """Return the class (N,) by which images are dealt out to folds."""
        if self.task == "multilabel":
            return rarest_label(self.targets).cpu().numpy()
        return (self.targets if self.targets.ndim == 1 else self.targets.argmax(1)).long().cpu().numpy()


@torch.no_grad()
def fit_head(head: nn.Sequential, spec: HeadSpec, examples: HeadExamples, settings: SolverSettings) -> SolvedHead:
    """Find a head's weights, write them into it and say how it went.

    Args:
        head: From `build_head`; changed in place.
        spec: What it was built from.
        examples: Features and targets of the training images.
        settings: The solver.

    Raises:
        ConfigError: The head or the task is not one that the solver can fit.
    """
    started = time.monotonic()
    _check_head(spec, examples, settings)
    mean, std = feature_statistics(examples)
    layer = standardize_layer(head)
    if layer is not None:
        layer.set_statistics(mean, std)
    if settings.solver == "adaboost":
        return replace(fit_boosted_head(head, examples, settings.seed), seconds=time.monotonic() - started)
    if settings.solver == "nearest_mean":
        solved = fit_class_means(head, examples)
    else:
        solved = fit_convex_head(head, examples, settings, mean, torch.ones_like(std) if layer is None else std)
    zeros = float(torch.eq(last_layer(head).weight, 0).double().mean())
    return replace(solved, seconds=time.monotonic() - started, zeros=zeros)


def _check_head(spec: HeadSpec, examples: HeadExamples, settings: SolverSettings) -> None:
    """Check that the solver can fit the head on the task.

    Raises:
        ConfigError: It cannot.
    """
    if spec.kind == "mlp" or (spec.kind == "cosine" and settings.solver != "nearest_mean"):
        raise ConfigError(f"head.solver={settings.solver} cannot fit head.kind={spec.kind}. Set head.kind=linear.")
    check_solver_task(settings, examples.task)


def last_layer(head: nn.Sequential) -> nn.Linear | CosineLinear:
    """Return the layer whose weights are looked for."""
    last = head[-1]
    assert isinstance(last, nn.Linear | CosineLinear)
    return last


def feature_statistics(examples: HeadExamples) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (F,) of the features in float64 where it exists; a constant one has deviation 1."""
    features, count = examples.features, len(examples.features)
    step = examples.chunk or count
    wide = torch.float32 if features.device.type == "mps" else torch.float64
    blocks = [slice(start, start + step) for start in range(0, count, step)]
    zero = torch.zeros(features.shape[1], dtype=wide, device=features.device)
    mean = sum((features[block].to(wide).sum(0) for block in blocks), zero) / count
    squares = sum(((features[block].to(wide) - mean).square().sum(0) for block in blocks), zero)
    std = (squares / count).sqrt()
    constant = std <= 1e-6 * (mean.abs() + torch.finfo(torch.float32).tiny)
    return mean, torch.where(constant, 1.0, std)


def fit_class_means(head: nn.Sequential, examples: HeadExamples) -> SolvedHead:
    """Write class means into a linear or cosine head."""
    layer = standardize_layer(head)
    features = examples.features.to(examples.like)
    if layer is not None:
        features = (features - layer.mean.to(features)) / layer.std.to(features)
    classes = examples.targets if examples.targets.ndim == 1 else examples.targets.argmax(1)
    parts = features, classes.long(), examples.weights(), examples.num_classes
    last = last_layer(head)
    if isinstance(last, CosineLinear):
        vectors, scale = imprinted(*parts)
        last.log_scale.copy_(torch.tensor(scale).log())
    else:
        vectors, bias, scale = nearest_means(*parts)
        last.bias.copy_(bias)
    last.weight.copy_(vectors)
    return SolvedHead("nearest_mean", 0.0, 0.0, 0, True, 0.0, 0.0, scale=scale)


def fit_boosted_head(head: nn.Sequential, examples: HeadExamples, seed: int) -> SolvedHead:
    """Fit boosted trees to standardised features, where the head standardises them."""
    layer, trees = standardize_layer(head), head[-1]
    assert isinstance(trees, BoostedTrees)
    features = examples.features if layer is None else layer(examples.features.float())
    classes = examples.targets if examples.targets.ndim == 1 else examples.targets.argmax(1)
    arrays = features.float().cpu().numpy(), classes.long().cpu().numpy(), examples.weights().double().cpu().numpy()
    return SolvedHead("adaboost", 0.0, 0.0, fit_boosted(trees, *arrays, seed), True, 0.0, 0.0)


def fit_convex_head(
    head: nn.Sequential, examples: HeadExamples, settings: SolverSettings, center: Tensor, scale: Tensor
) -> SolvedHead:
    """Fit a linear head to its optimum, choosing the strength first where none is given."""
    like, smooth = examples.like, settings.solver == "lbfgs"
    design = make_design(examples.features, center, scale, rotate=smooth, dtype=like.dtype, chunk=examples.chunk)
    weights = normalised(examples.weights()[:, None])
    objective = LogisticObjective(design, examples.loss_targets(examples.smoothing), weights, examples.chunk)
    # two classes are solved as one difference, on which half of the squared penalty falls
    share = 0.5 if examples.task == "multiclass" and examples.num_classes == 2 else 1.0
    fit = partial(fit_l2, share=share) if smooth else partial(fit_l1, l2=share * (settings.l2 or 0.0))
    rough, fine = GAPS if smooth else SLACKS
    strength, choice = settings.l2 if smooth else settings.l1, None
    if strength is None:
        choice = _choose(objective, examples, settings, partial(fit, slack=rough), smooth)
        strength = choice.strength
    solution = fit(objective, torch.full_like(weights[0], strength), None, slack=fine)
    _write(head, design, solution, center, scale)
    l2, l1 = (strength, 0.0) if smooth else (settings.l2 or 0.0, strength)
    done, steps = bool(solution.converged.all()), int(solution.iterations.max())
    solved = SolvedHead(settings.solver, l2, l1, steps, done, 0.0, 0.0)
    return solved if choice is None else replace(solved, folds=choice.folds, curve=choice.curve)


def _choose(
    objective: LogisticObjective, examples: HeadExamples, settings: SolverSettings, fit: Fit, smooth: bool
) -> PenaltyChoice:
    """Return the strength that does best in cross-validation.

    Raises:
        ConfigError: There are too few images to hold some out.
    """
    folds = make_label_folds(examples.strata(), settings.folds, settings.seed, examples.groups)
    name = "l2" if smooth else "l1"
    if folds.max() < 1:
        raise ConfigError(
            f"head.{name}=cv has too few training images (or groups) to hold some out. Give a number: head.{name}=0.1."
        )
    if smooth:
        strengths = strengths_below(L2_RANGE[1] * float(objective.design.curvature.sum()), L2_RANGE[0] / L2_RANGE[1])
    else:
        strengths = strengths_below(float(largest_l1(objective).max()), L1_RATIO)
    return choose_strength(objective, examples.loss_targets(0.0), folds, strengths, fit)


def fit_l2(
    objective: LogisticObjective, l2: Tensor, start: Tensor | None, *, share: float, slack: float
) -> LbfgsSolution:
    """Return weights whose value is above the least by no more than the slack, as far as precision allows."""
    tolerance = (2 * share * l2 * slack).sqrt().clamp(min=64 * torch.finfo(l2.dtype).eps)
    return minimise_lbfgs(objective, share * l2, tolerance=tolerance, start=start)


def fit_l1(objective: LogisticObjective, l1: Tensor, start: Tensor | None, *, l2: float, slack: float) -> LbfgsSolution:
    """Return sparse weights whose slopes are off by no more than the slack, a share of l1."""
    tolerance = (l1 * slack).clamp(min=64 * torch.finfo(l1.dtype).eps)
    return minimise_l1(objective, l1, torch.full_like(l1, l2), tolerance=tolerance, start=start)


def _write(head: nn.Sequential, design: DesignMatrix, solution: LbfgsSolution, center: Tensor, scale: Tensor) -> None:
    """Write a solution into the last layer of a head that divides by scale and subtracts the center, or does not."""
    last = last_layer(head)
    assert isinstance(last, nn.Linear)
    weight, bias = design.restore(expand_weights(solution.weight, last.out_features))
    weight, bias = weight[:, :, 0].T.to(center), bias[:, 0].to(center)
    if standardize_layer(head) is None:
        weight = weight / scale
        bias = bias - weight @ center
    last.weight.copy_(weight)
    last.bias.copy_(bias)
